"""A trained pipeline as a model folder of diffusers, with what the host wants to know about it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import AttrsInstance, asdict

logger = logging.getLogger(__name__)

MAX_WEIGHT_BYTES = 24_000_000


@torch.no_grad()
def narrow_posterior(vae: Any) -> None:
    """Set the variances of a causal autoencoder, which were never trained, to a small constant."""
    vae.quant_conv.weight[vae.config.z_dim :] = 0
    vae.quant_conv.bias[vae.config.z_dim :] = -6.0


def write_model_folder(pipeline: Any, folder: Path, defaults: AttrsInstance, make_card: Callable[[int], str]) -> int:
    """Write the model folder, replacing an older one at once; return the bytes of all weights.

    :param defaults: how the model is best used; written to ``sglang.json``.
    :param make_card: makes the model card, from the bytes of all weights.
    :raises ValueError: if the weights are too large to ship; an older folder stays.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    _load_text_encoder_as_float32(partial / "text_encoder" / "config.json")
    num_bytes = sum(path.stat().st_size for path in partial.rglob("*.safetensors"))
    if num_bytes > MAX_WEIGHT_BYTES:
        raise ValueError(f"the weights take {num_bytes} bytes, more than {MAX_WEIGHT_BYTES}")
    (partial / "sglang.json").write_text(json.dumps(asdict(defaults), indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(make_card(num_bytes), encoding="utf-8")
    retired = folder.with_name(folder.name + ".retired")
    shutil.rmtree(retired, ignore_errors=True)
    if folder.exists():
        folder.replace(retired)
    partial.replace(folder)
    shutil.rmtree(retired, ignore_errors=True)
    logger.info("exported %s: %.1f MB of weights", folder, num_bytes / 1e6)
    return num_bytes


def _load_text_encoder_as_float32(path: Path) -> None:
    """Agree with diffusers on the precision to load.

    Without ``torch_dtype`` diffusers loads its parts as float32 and transformers as
    what the configuration says, which would be the bfloat16 of the file.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, *(config[name] for name in ("text_config", "vision_config") if name in config)):
        part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def card_facts(
    vae_config: AttrsInstance, network: AttrsInstance, defaults: AttrsInstance, num_bytes: int
) -> Mapping[str, Any]:
    """What a model card can name: the settings of all parts by their names, and some of their own."""
    facts = {**asdict(vae_config), **asdict(network), **asdict(defaults)}
    return {
        **facts,
        "megabytes": num_bytes / 1e6,
        "dim": facts["num_heads"] * facts["head_dim"],
        "steps": facts["num_inference_steps"],
        "guidance": facts["guidance_scale"],
    }
