"""Checkpoints from an exported model, so that training can go on where only the model was kept."""

from __future__ import annotations

from pathlib import Path

from diffusers import WanPipeline

from shapes_training.restore import write_checkpoints

from .train_transformer import TextToVideo, TransformerConfig
from .train_vae import VaeConfig


def restore(config: TransformerConfig, vae_config: VaeConfig, folder: Path, out: Path) -> None:
    """Write the checkpoints of both stages, with the exported weights, fresh optimizers and an unused clock.

    :raises FileExistsError: if ``out`` has checkpoints already.
    """
    write_checkpoints(
        lambda: WanPipeline.from_pretrained(folder),
        lambda tokenizer: TextToVideo(config.network, tokenizer, vae_config.z_dim),
        out,
        vae_minutes=vae_config.minutes,
    )
