"""Models with random weights in the geometry of the real ones, with fewer layers where a machine is small."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

#: The whole models: Wan 2.1 T2V 1.3B and Qwen-Image.
WAN_LAYERS, QWEN_LAYERS = 30, 60
_LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,"]


def make_wan(folder: Path, *, layers: int, text_layers: int, device: str = "cpu") -> Path:
    """Write a Wan 2.1 T2V 1.3B with so many layers, and an UMT5-XXL with so many; return the folder."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    tokenizer = _t5_tokenizer(folder / "tokenizer")
    text = UMT5Config(
        d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=text_layers, vocab_size=len(tokenizer)
    )
    with torch.device(device):
        transformer = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=layers
        )
        parts = {
            "transformer": transformer.to(torch.bfloat16),
            "text_encoder": UMT5EncoderModel(text).to(torch.bfloat16),
            "vae": AutoencoderKLWan(),
        }
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    WanPipeline(tokenizer=tokenizer, scheduler=scheduler, **parts).save_pretrained(folder)
    return folder


def make_qwen_image(folder: Path, *, layers: int, tokenizer_folder: Path, device: str = "cpu") -> Path:
    """Write a Qwen-Image with so many blocks of real size and a small text encoder; return the folder."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 1,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": rope,
    }
    vision = {"depth": 1, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 3584}
    with torch.device(device):
        parts = {
            "transformer": QwenImageTransformer2DModel(num_layers=layers).to(torch.bfloat16),
            "text_encoder": Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config=text, vision_config=vision)
            ).to(torch.bfloat16),
            "vae": AutoencoderKLQwenImage(),
        }
    QwenImagePipeline(
        tokenizer=tokenizer, scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), **parts
    ).save_pretrained(folder)
    return folder


def load_vanilla(folder: Path, device: str) -> Any:
    """Return the folder as a pipeline of diffusers: weights in bfloat16, the autoencoder in float32."""
    from diffusers import DiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dtypes = {"default": torch.bfloat16, "vae": torch.float32}
        pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtypes).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _t5_tokenizer(folder: Path) -> Any:
    """Write and return a tokenizer of T5's kind whose tokens are letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces + [(letter, -2.0) for letter in _LETTERS], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    bar = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), bar])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **names}))
    return T5TokenizerFast.from_pretrained(folder)
