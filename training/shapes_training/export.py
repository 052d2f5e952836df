"""Write the trained parts as a diffusers model folder."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, frozen
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import (
    AutoencoderKLQwenImage,
    QwenImageCausalConv3d,
)

from .model_card import model_card
from .tokenizer import check_pipeline_template
from .train_transformer import TransformerConfig, load_trained_model
from .train_vae import VaeConfig, create_vae, load_trained_vae

logger = logging.getLogger(__name__)

MAX_WEIGHT_BYTES = 24_000_000
#: Spends most steps near noise, where the caption decides (see ``random_sigmas``).
TIMESTEP_SHIFT = 3.0


@frozen(kw_only=True)
class Defaults:
    """How the exported model is best used; written to ``sglang.json``."""

    task: str = "text-to-image"
    width: int = 128
    height: int = 128
    num_inference_steps: int = 20
    #: The true classifier-free guidance scale.
    guidance_scale: float = 4.0
    negative_prompt: str = " "
    #: Version of the weights.
    revision: str = "1"


def build_pipeline(vae_config: VaeConfig, config: TransformerConfig, out: Path) -> QwenImagePipeline:
    """Assemble the last checkpoints, in the precision in which they are exported."""
    trained_vae = load_trained_vae(vae_config, out)
    model, tokenizer, state = load_trained_model(config.network, vae_config.z_dim, out)
    vae = create_vae(vae_config)
    vae.load_state_dict(trained_vae.state_dict())
    _tidy_vae(vae)
    vae.register_to_config(latents_mean=state["latents_mean"].tolist(), latents_std=state["latents_std"].tolist())
    transformer = QwenImageTransformer2DModel.from_config(model.transformer.config)
    transformer.load_state_dict(model.transformer.state_dict())
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=TIMESTEP_SHIFT, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )
    check_pipeline_template(pipeline)
    pipeline.to(torch.bfloat16)
    return pipeline


@torch.no_grad()
def _tidy_vae(vae: AutoencoderKLQwenImage) -> None:
    """Clear what single frames never use, and make the posterior narrow.

    Zeros in the earlier temporal slices compress to nothing in a wheel; the
    variances were never trained, so they are set to a small constant.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, QwenImageCausalConv3d):
            continue
        if name.endswith("time_conv"):
            module.weight.zero_()
            assert module.bias is not None
            module.bias.zero_()
        else:
            module.weight[:, :, :-1] = 0
    assert vae.quant_conv.bias is not None
    vae.quant_conv.weight[vae.config.z_dim :] = 0
    vae.quant_conv.bias[vae.config.z_dim :] = -6.0


def export(
    vae_config: VaeConfig, config: TransformerConfig, defaults: Defaults, out: Path, folder: Path, scores: str = ""
) -> int:
    """Write the model folder, replacing an older one at once; return the bytes of all weights.

    :param scores: what the judge measured, as lines of Markdown for the model card.
    """
    pipeline = build_pipeline(vae_config, config, out)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    _load_text_encoder_as_float32(partial / "text_encoder" / "config.json")
    num_bytes = sum(path.stat().st_size for path in partial.rglob("*.safetensors"))
    if num_bytes > MAX_WEIGHT_BYTES:
        raise ValueError(f"the weights take {num_bytes} bytes, more than {MAX_WEIGHT_BYTES}")
    (partial / "sglang.json").write_text(json.dumps(asdict(defaults), indent=2) + "\n", encoding="utf-8")
    card = model_card(_facts(vae_config, config, defaults, num_bytes), scores)
    (partial / "README.md").write_text(card, encoding="utf-8")
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
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _facts(vae_config: VaeConfig, config: TransformerConfig, defaults: Defaults, num_bytes: int) -> dict[str, Any]:
    return {
        "megabytes": num_bytes / 1e6,
        "base_dim": vae_config.base_dim,
        "num_layers": config.network.num_layers,
        "dim": config.network.num_heads * config.network.head_dim,
        "text_dim": config.network.text_dim,
        "num_text_layers": config.network.num_text_layers,
        "steps": defaults.num_inference_steps,
        "guidance": defaults.guidance_scale,
        "width": defaults.width,
        "height": defaults.height,
    }
