"""Tiny models: the files of a pipeline without anything trained, on disk or in memory."""

import json
import math
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..models import ModelReference, ModelSource, ProgressCallback
from ..registry import Availability
from ..safetensors_header import DTYPE_BYTES

#: Components as ``name: (library, class, weight file, tensors as name: (dtype, shape))``.
_COMPONENTS: Mapping[str, tuple[str, str, str, Mapping[str, tuple[str, tuple[int, ...]]]]] = {
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", "", {}),
    "text_encoder": ("transformers", "CLIPTextModel", "model.safetensors", {"embedding": ("F32", (4, 8))}),
    "tokenizer": ("transformers", "CLIPTokenizer", "", {}),
    "transformer": (
        "diffusers",
        "SD3Transformer2DModel",
        "diffusion_pytorch_model.safetensors",
        {"block": ("BF16", (8, 16)), "norm": ("BF16", (16,))},
    ),
    "vae": ("diffusers", "AutoencoderKL", "diffusion_pytorch_model.safetensors", {"conv": ("F32", (3, 3))}),
}


def tiny_pipeline_files(pipeline_class: str = "NoOpPipeline", **recommended: Any) -> dict[str, bytes]:
    """Return the files of a pipeline of under 2 kB by relative path; its weights are zeros that nothing can run.

    :param recommended: values for its ``sglang.json``, for example ``num_inference_steps=4``.
    """
    index: dict[str, Any] = {"_class_name": pipeline_class, "_diffusers_version": "0.36.0"}
    files = {}
    for name, (library, class_name, weight_file, tensors) in _COMPONENTS.items():
        index[name] = [library, class_name]
        config = "scheduler_config.json" if name == "scheduler" else "config.json"
        files[f"{name}/{'tokenizer_config.json' if name == 'tokenizer' else config}"] = _json({"_class": class_name})
        if weight_file:
            files[f"{name}/{weight_file}"] = _safetensors(tensors)
    if recommended:
        files["sglang.json"] = _json(recommended)
    return {"model_index.json": _json(index), **files}


def write_tiny_pipeline(folder: Path, pipeline_class: str = "NoOpPipeline", **recommended: Any) -> Path:
    """Write the files of :func:`tiny_pipeline_files` to ``folder`` and return it."""
    for path, content in tiny_pipeline_files(pipeline_class, **recommended).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()


def _safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return a safetensors file of zeros: the length of the header, the header, the values."""
    header, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        end = offset + DTYPE_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


class MemorySource:
    """A model whose files are bytes in memory; ``fetch`` writes them to ``folder``."""

    def __init__(self, reference: str, files: Mapping[str, bytes], folder: Path, revision: str | None = None) -> None:
        self.reference = reference
        self.resolver = "memory"
        self.revision = revision
        self._contents = dict(files)
        self._folder = folder

    def files(self) -> Mapping[str, int]:
        """Return every path with its size in bytes."""
        return {path: len(content) for path, content in self._contents.items()}

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return a part of a file."""
        return self._contents[path][start : None if length is None else start + length]

    def fetch(self, paths: Collection[str], progress: ProgressCallback) -> Path:
        """Write ``paths`` and return the folder."""
        total, done = sum(len(self._contents[path]) for path in paths), 0
        for path in paths:
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / path).write_bytes(self._contents[path])
            done += len(self._contents[path])
            progress(done, total)
        return self._folder

    def sampling_defaults(self) -> Mapping[str, Any]:
        """Return the values of ``sglang.json``, if there is one."""
        values: Mapping[str, Any] = json.loads(self._contents.get("sglang.json", b"{}"))
        return values


class MemoryResolver:
    """Finds models in memory: ``memory/NAME`` for each name of ``models``."""

    name = "memory"

    def __init__(self, models: Mapping[str, Mapping[str, bytes]], folder: Path, order: int = 1) -> None:
        self.order = order
        self._models = models
        self._folder = folder

    def probe(self) -> Availability:
        """Return that memory is always there."""
        return Availability.yes()

    def resolve(self, reference: ModelReference) -> ModelSource | None:
        """Return the model, or ``None`` for every other reference."""
        name = reference.path.removeprefix("memory/")
        if name == reference.path or name not in self._models:
            return None
        return MemorySource(reference.path, self._models[name], self._folder / name)

    def hint(self, reference: ModelReference) -> str | None:
        """Name the models."""
        return f"one of {', '.join(f'memory/{name}' for name in self._models)}"
