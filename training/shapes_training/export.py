"""Write the trained parts as a diffusers model folder."""

from __future__ import annotations

from pathlib import Path

import torch
from attrs import frozen
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import (
    AutoencoderKLQwenImage,
    QwenImageCausalConv3d,
)

from .model_card import model_card
from .model_folder import card_facts, narrow_posterior, write_model_folder
from .tokenizer import check_pipeline_template
from .train_transformer import TransformerConfig, load_trained_model
from .train_vae import VaeConfig, create_vae, load_trained_vae

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
    guidance_scale: float = 3.0
    negative_prompt: str = " "
    #: Version of the weights.
    revision: str = "1"


def build_pipeline(vae_config: VaeConfig, config: TransformerConfig, out: Path) -> QwenImagePipeline:
    """Assemble the last checkpoints, in the precision in which they are exported."""
    trained_vae = load_trained_vae(vae_config, out)
    model, tokenizer, state = load_trained_model(config.network, vae_config.z_dim, out)
    vae = create_vae(vae_config)
    vae.load_state_dict(trained_vae.state_dict())
    _clear_other_frames(vae)
    narrow_posterior(vae)
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
def _clear_other_frames(vae: AutoencoderKLQwenImage) -> None:
    """Clear what single frames never use: zeros compress to nothing in a wheel."""
    for name, module in vae.named_modules():
        if not isinstance(module, QwenImageCausalConv3d):
            continue
        if name.endswith("time_conv"):
            module.weight.zero_()
            assert module.bias is not None
            module.bias.zero_()
        else:
            module.weight[:, :, :-1] = 0


def export(
    vae_config: VaeConfig, config: TransformerConfig, defaults: Defaults, out: Path, folder: Path, scores: str = ""
) -> int:
    """Write the model folder, replacing an older one at once; return the bytes of all weights.

    :param scores: what the judge measured, as lines of Markdown for the model card.
    """
    pipeline = build_pipeline(vae_config, config, out)

    def make_card(num_bytes: int) -> str:
        return model_card(card_facts(vae_config, config.network, defaults, num_bytes), scores)

    return write_model_folder(pipeline, folder, defaults, make_card)
