"""Checkpoints from an exported model, so that training can go on where only the model was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import nn

from .progress import AveragedWeights, make_optimizer, save_checkpoint
from .train_transformer import CHECKPOINT as TRANSFORMER_CHECKPOINT
from .train_transformer import TextToImage, TransformerConfig
from .train_vae import CHECKPOINT as VAE_CHECKPOINT
from .train_vae import VaeConfig


def restore(config: TransformerConfig, vae_config: VaeConfig, folder: Path, out: Path) -> None:
    """Write the checkpoints of both stages, with the exported weights, fresh optimizers and an unused clock.

    :raises FileExistsError: if ``out`` has checkpoints already.
    """
    for name in (VAE_CHECKPOINT, TRANSFORMER_CHECKPOINT):
        if (out / name).exists():
            raise FileExistsError(f"{out / name} is there already: name another folder with --out")
    pipeline: Any = QwenImagePipeline.from_pretrained(folder)
    vae_state = {"vae": pipeline.vae.state_dict(), **_beginning(pipeline.vae, vae_config.peak_learning_rate, 0.0)}
    # The autoencoder is finished: its time counts as used.
    save_checkpoint(out / VAE_CHECKPOINT, {**vae_state, "used_s": 60.0 * vae_config.minutes})
    model = TextToImage(config.network, pipeline.tokenizer, vae_config.z_dim)
    model.transformer.load_state_dict(pipeline.transformer.state_dict())
    model.text_encoder.load_state_dict(pipeline.text_encoder.state_dict())
    pipeline.tokenizer.save_pretrained(out / "tokenizer")
    latents = {name: torch.tensor(getattr(pipeline.vae.config, name)) for name in ("latents_mean", "latents_std")}
    state = {"model": model.state_dict(), **_beginning(model, config.peak_learning_rate, 0.01), **latents}
    save_checkpoint(out / TRANSFORMER_CHECKPOINT, {**state, "num_chunks": config.num_first_chunks, "used_s": 0.0})


def _beginning(module: nn.Module, peak_learning_rate: float, weight_decay: float) -> dict[str, Any]:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(parameters, peak_learning_rate, weight_decay)
    average = AveragedWeights(module, decay=0.0)
    return {"average": average.weights, "optimizer": optimizer.state_dict(), "step": 0}
