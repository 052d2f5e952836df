"""Checkpoints from an exported model, so that training can go on where only the model was kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import nn

from .progress import AveragedWeights, save_checkpoint
from .train_transformer import CHECKPOINT as TRANSFORMER_CHECKPOINT
from .train_transformer import TextToImage, TransformerConfig
from .train_vae import CHECKPOINT as VAE_CHECKPOINT
from .train_vae import VaeConfig


def restore(config: TransformerConfig, vae_config: VaeConfig, folder: Path, out: Path) -> None:
    """Write the checkpoints of both stages, with the exported weights, fresh optimizers and an unused clock.

    :raises FileExistsError: if ``out`` has checkpoints already.
    """
    write_checkpoints(
        lambda: QwenImagePipeline.from_pretrained(folder),
        lambda tokenizer: TextToImage(config.network, tokenizer, vae_config.z_dim),
        out,
        vae_minutes=vae_config.minutes,
        num_chunks=config.num_first_chunks,
    )


def write_checkpoints(
    load: Callable[[], Any], make_model: Callable[[Any], nn.Module], out: Path, *, vae_minutes: float, **extra: int
) -> None:
    """Write the checkpoints of the autoencoder and the transformer.

    :param load: makes the exported pipeline.
    :param make_model: makes what the transformer's stage trains, from the tokenizer.
    :param vae_minutes: training time of the autoencoder.
    :param extra: what else the transformer's checkpoint keeps.
    :raises FileExistsError: if ``out`` has checkpoints already.
    """
    for name in (VAE_CHECKPOINT, TRANSFORMER_CHECKPOINT):
        if (out / name).exists():
            raise FileExistsError(f"{out / name} is there already: name another folder with --out")
    pipeline = load()
    # The autoencoder is finished: its time counts as used.
    vae_state = {"vae": pipeline.vae.state_dict(), **_beginning(pipeline.vae), "used_s": 60.0 * vae_minutes}
    save_checkpoint(out / VAE_CHECKPOINT, vae_state)
    model: Any = make_model(pipeline.tokenizer)
    model.transformer.load_state_dict(pipeline.transformer.state_dict())
    model.text_encoder.load_state_dict(pipeline.text_encoder.state_dict())
    pipeline.tokenizer.save_pretrained(out / "tokenizer")
    latents = {name: torch.tensor(getattr(pipeline.vae.config, name)) for name in ("latents_mean", "latents_std")}
    state = {"model": model.state_dict(), **_beginning(model), **latents, **extra, "used_s": 0.0}
    save_checkpoint(out / TRANSFORMER_CHECKPOINT, state)


def _beginning(module: nn.Module) -> dict[str, Any]:
    return {"average": AveragedWeights(module, decay=0.0).weights, "step": 0}
