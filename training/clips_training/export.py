"""Write the trained parts as a diffusers model folder."""

from __future__ import annotations

from pathlib import Path

import torch
from attrs import frozen
from diffusers import UniPCMultistepScheduler, WanPipeline

from shapes_training.model_folder import card_facts, narrow_posterior, write_model_folder

from .captions import EMPTY_CAPTION
from .clips import FPS, FRAME_SIZE, NUM_FRAMES
from .model_card import model_card
from .train_transformer import TransformerConfig, load_trained_model
from .train_vae import VaeConfig, load_trained_vae

#: Spends most steps near noise, where the caption decides (see ``logit_normal_sigmas``).
FLOW_SHIFT = 3.0


@frozen(kw_only=True)
class Defaults:
    """How the exported model is best used; written to ``sglang.json``."""

    task: str = "text-to-video"
    width: int = FRAME_SIZE
    height: int = FRAME_SIZE
    num_frames: int = NUM_FRAMES
    fps: int = FPS
    num_inference_steps: int = 20
    #: The classifier-free guidance scale.
    guidance_scale: float = 2.0
    negative_prompt: str = EMPTY_CAPTION
    #: Version of the weights.
    revision: str = "1"


def build_pipeline(vae_config: VaeConfig, config: TransformerConfig, out: Path) -> WanPipeline:
    """Assemble the last checkpoints, in the precision in which they are exported."""
    vae = load_trained_vae(vae_config, out)
    model, tokenizer, state = load_trained_model(config.network, vae_config.z_dim, out)
    narrow_posterior(vae)
    vae.register_to_config(latents_mean=state["latents_mean"].tolist(), latents_std=state["latents_std"].tolist())
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        num_train_timesteps=1000,
        solver_order=2,
    )
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        vae=vae,
        scheduler=scheduler,
        transformer=model.transformer,
    )
    pipeline.to(torch.bfloat16)
    return pipeline


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
