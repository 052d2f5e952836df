"""Small pipeline folders for tests: everything a description reads, no trained weights."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}


def safetensors_bytes(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> bytes:
    """Return a safetensors file of zeros; ``tensors`` maps names to (dtype, shape)."""
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = _SIZES[dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_weights(path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(tensors))


def write_pipeline(folder: Path, transformer_values: int = 1000) -> Path:
    """Write a text-to-image pipeline: transformer (bf16), VAE and text encoder (fp32), tokenizer, scheduler."""
    index = {
        "_class_name": "QwenImagePipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    }
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler/scheduler_config.json", {"shift": 3.0})
    write_json(folder / "tokenizer/vocab.json", {"a": 0})
    write_json(folder / "text_encoder/config.json", {"hidden_size": 8})
    write_weights(folder / "text_encoder/model.safetensors", {"w": ("F32", [4, 5])})
    write_json(folder / "transformer/config.json", {"num_layers": 1})
    name = "transformer/diffusion_pytorch_model.safetensors"
    write_weights(folder / name, {"w": ("BF16", [transformer_values]), "b": ("F32", [3])})
    write_json(folder / "vae/config.json", {"z_dim": 16})
    write_weights(folder / "vae/diffusion_pytorch_model.safetensors", {"w": ("F32", [2, 3])})
    return folder
