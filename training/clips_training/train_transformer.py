"""Train the transformer and the text encoder by flow matching on latents of drawn clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import Factory, field, frozen
from attrs.validators import gt
from diffusers import WanTransformer3DModel
from torch import nn
from transformers import T5Tokenizer, UMT5EncoderModel

from shapes_training.naming import load_trained_text
from shapes_training.parallel import run_processes, share
from shapes_training.products import use_bf16_products
from shapes_training.stage import Stage, load_average, read_trained

from .captions import EMPTY_CAPTION
from .clips import FRAME_SIZE, NUM_FRAMES
from .latent_bank import LatentBank
from .network import (
    NetworkConfig,
    Velocity,
    create_optimizers,
    create_text_encoder,
    create_transformer,
    encode_text,
    grid_of,
    logit_normal_sigmas,
)
from .tokenizer import prepare_tokenizer, tokenize
from .train_text import training_caption
from .train_vae import VaeConfig, load_trained_vae

logger = logging.getLogger(__name__)

CHECKPOINT = "transformer.pt"


@frozen(kw_only=True)
class TransformerConfig:
    """Training of the transformer; its shape is in ``network``."""

    network: NetworkConfig = Factory(NetworkConfig)
    #: Training time; the learning rate falls to zero within it.
    minutes: float = field(default=70.0, validator=gt(0))
    #: Clips in one step, over all processes.
    batch_size: int = field(default=32, validator=gt(0))
    num_processes: int = field(default=2, validator=gt(0))
    peak_learning_rate: float = 1.2e-3
    #: Captions replaced by the empty one, for classifier-free guidance.
    dropped_captions: float = 0.1
    #: Clips of every process, for quick trials; None for all.
    max_clips: int | None = None
    seed: int = 0
    use_compile: bool = True
    #: Stop early, after so many steps of this run.
    max_steps: int | None = None


class TextToVideo(nn.Module):
    """What is trained: the text encoder and the transformer."""

    def __init__(self, config: NetworkConfig, tokenizer: T5Tokenizer, latent_channels: int) -> None:
        super().__init__()
        self.transformer: WanTransformer3DModel = create_transformer(config, latent_channels)
        self.text_encoder: UMT5EncoderModel = create_text_encoder(config, tokenizer)


def train_transformer(config: TransformerConfig, vae_config: VaeConfig, out: Path) -> None:
    """Train, or go on training, until the time is used up; the result is the checkpoint."""
    run_processes(config.num_processes, out, partial(_train, config, vae_config, out))


def _train(config: TransformerConfig, vae_config: VaeConfig, out: Path, rank: int) -> None:
    torch.manual_seed(config.seed)
    tokenizer = prepare_tokenizer(out / "tokenizer")
    model = TextToVideo(config.network, tokenizer, vae_config.z_dim)
    use_bf16_products(model)
    if text_weights := load_trained_text(out):
        model.text_encoder.load_state_dict(text_weights)
    optimizers = create_optimizers(model, config.peak_learning_rate, weight_decay=0.01)
    stage = Stage("transformer", out / CHECKPOINT, model, optimizers, config, keys=("model", "adamw"), decay=0.999)
    bank, mean, std = _prepare_latents(config, vae_config, out, rank, stage.state)
    logger.info("transformer: %d clips in each of %d processes", len(bank), config.num_processes)
    # Every process picks clips of its own share.
    torch.manual_seed(1000 * stage.step + rank)
    rng = np.random.default_rng((config.seed, 2, stage.step, rank))
    grid = grid_of(NUM_FRAMES, FRAME_SIZE, vae_config.spatial_factor)
    velocity = Velocity(model.transformer, grid, use_compile=config.use_compile)
    count = max(1, config.batch_size // config.num_processes)

    def compute(fraction: float) -> tuple[torch.Tensor, list[float]]:
        indices = rng.integers(len(bank), size=count).tolist()
        latents = (bank.pick(indices) - mean[:, None, None, None]) / std[:, None, None, None]
        captions = [_caption(config, tokenizer, bank, index, rng) for index in indices]
        loss = _flow_matching_loss(model, velocity, tokenizer, latents, captions, config.network)
        return loss, [loss.item()]

    def report(recent: Sequence[Sequence[float]]) -> str:
        return f"loss {np.mean(recent):.4f}"

    def extra() -> dict[str, Any]:
        return {"latents_mean": mean, "latents_std": std}

    stage.run(compute, report, num_warmup_steps=200, num_numbers=1, rank=rank, extra=extra)


def _prepare_latents(
    config: TransformerConfig, vae_config: VaeConfig, out: Path, rank: int, state: dict[str, Any] | None
) -> tuple[LatentBank, torch.Tensor, torch.Tensor]:
    """The latents with the mean and standard deviation of their channels, which all processes share."""
    bank = LatentBank(
        load_trained_vae(vae_config, out),
        out / "latents",
        rank=rank,
        num_parts=config.num_processes,
        max_clips=config.max_clips,
        use_compile=config.use_compile,
    )
    mean, std = bank.statistics() if state is None else (state["latents_mean"], state["latents_std"])
    return bank, share(mean), share(std)


def _caption(
    config: TransformerConfig, tokenizer: T5Tokenizer, bank: LatentBank, index: int, rng: np.random.Generator
) -> str:
    if rng.random() < config.dropped_captions:
        return EMPTY_CAPTION
    return training_caption(bank.clips[index], tokenizer, config.network.num_text_tokens, rng, canonical_fraction=0.3)


def _flow_matching_loss(
    model: TextToVideo,
    velocity: nn.Module,
    tokenizer: T5Tokenizer,
    latents: torch.Tensor,
    captions: list[str],
    config: NetworkConfig,
) -> torch.Tensor:
    ids, mask = tokenize(tokenizer, captions, config.num_text_tokens)
    noise, sigma = torch.randn_like(latents), logit_normal_sigmas(len(latents))
    noisy = torch.lerp(latents, noise, sigma[:, None, None, None, None])
    predicted = velocity(noisy, sigma, encode_text(model.text_encoder, ids, mask), mask)
    error: torch.Tensor = (predicted - (noise - latents)).square().mean()
    return error


def load_trained_model(
    config: NetworkConfig, latent_channels: int, out: Path
) -> tuple[TextToVideo, T5Tokenizer, dict[str, Any]]:
    """The averaged weights of the last checkpoint, the tokenizer, and the checkpoint itself.

    :raises FileNotFoundError: if there is none.
    """
    state = read_trained(out / CHECKPOINT, "transformer", "transformer")
    tokenizer = prepare_tokenizer(out / "tokenizer")
    model = TextToVideo(config, tokenizer, latent_channels)
    load_average(model, "model", state)
    return model.eval(), tokenizer, state
