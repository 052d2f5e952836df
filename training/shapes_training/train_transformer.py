"""Train the transformer and the text encoder by flow matching on latents of drawn pictures."""

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
from diffusers import QwenImageTransformer2DModel
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from .captions import EMPTY_CAPTION, canonical_caption, free_caption
from .drawing import Scene
from .latent_bank import LatentBank
from .naming import load_trained_text
from .network import (
    NetworkConfig,
    Velocity,
    create_text_encoder,
    create_transformer,
    encode_text,
    pack,
)
from .optimizers import Optimizers
from .parallel import run_processes, share
from .stage import Stage, load_average, read_trained
from .tokenizer import NUM_DROPPED_TOKENS, NUM_END_TOKENS, prepare_tokenizer, tokenize
from .train_vae import VaeConfig, load_trained_vae

logger = logging.getLogger(__name__)

CHECKPOINT = "transformer.pt"
#: 128 pixels are 16 latents, and two latents are one token.
GRID = 8


@frozen(kw_only=True)
class TransformerConfig:
    """Training of the transformer; its shape is in ``network``."""

    network: NetworkConfig = Factory(NetworkConfig)
    #: Training time; the learning rate falls to zero within it.
    minutes: float = field(default=70.0, validator=gt(0))
    #: Pictures in one step, over all processes.
    batch_size: int = field(default=32, validator=gt(0))
    #: One for every two or fewer processor cores is fastest; the threads are divided among them.
    num_processes: int = field(default=2, validator=gt(0))
    peak_learning_rate: float = 1.2e-3
    #: Captions replaced by the empty one, for classifier-free guidance.
    dropped_captions: float = 0.1
    num_first_chunks: int = 8
    num_chunks: int = 80
    #: New pictures of every process, added together.
    chunk_size: int = field(default=256, validator=gt(0))
    #: A chunk is added every so many steps.
    steps_per_chunk: int = 100
    seed: int = 0
    use_compile: bool = True
    #: Faster only where the processor multiplies bfloat16 natively (AMX); slower elsewhere.
    use_bfloat16: bool = False
    #: Stop early, after so many steps of this run.
    max_steps: int | None = None


class TextToImage(nn.Module):
    """What is trained: the text encoder and the transformer."""

    def __init__(self, config: NetworkConfig, tokenizer: Qwen2Tokenizer, latent_channels: int) -> None:
        super().__init__()
        self.transformer: QwenImageTransformer2DModel = create_transformer(config, latent_channels)
        self.text_encoder: Qwen2_5_VLForConditionalGeneration = create_text_encoder(config, tokenizer)
        self.text_encoder.model.visual.requires_grad_(False)


def random_sigmas(count: int) -> torch.Tensor:
    """Noise levels: logit-normal around 0.82, with some uniform ones for the ends.

    Flat colours can be seen through a lot of noise, and what can be seen need not be
    read: only near pure noise does the caption matter, so that is where to train.
    The convention is that of FlowMatchEulerDiscreteScheduler: the noisy latents are
    (1 - sigma) * latents + sigma * noise, and the model is told sigma.
    """
    sigmas = torch.sigmoid(1.5 + 1.3 * torch.randn(count))
    return torch.where(torch.rand(count) < 0.15, torch.rand(count), sigmas)


def train_transformer(config: TransformerConfig, vae_config: VaeConfig, out: Path) -> None:
    """Train, or go on training, until the time is used up; the result is the checkpoint."""
    run_processes(config.num_processes, out, partial(_train, config, vae_config, out))


def _train(config: TransformerConfig, vae_config: VaeConfig, out: Path, rank: int) -> None:
    torch.manual_seed(config.seed)
    tokenizer = prepare_tokenizer(out / "tokenizer")
    model = TextToImage(config.network, tokenizer, vae_config.z_dim)
    if text_weights := load_trained_text(out):
        model.text_encoder.load_state_dict(text_weights)
    optimizers = Optimizers.of(model, config.peak_learning_rate, weight_decay=0.01)
    stage = Stage("transformer", out / CHECKPOINT, model, optimizers, config, keys=("model", "adamw"), decay=0.999)
    # Every process draws, and remembers, pictures of its own.
    torch.manual_seed(1000 * stage.step + rank)
    rng = np.random.default_rng((config.seed, 2, stage.step, rank))
    bank, mean, std = _prepare_latents(config, vae_config, out, rank, stage.state)
    logger.info("transformer: %d pictures encoded", len(bank))
    velocity = Velocity(model.transformer, GRID, config.network.num_text_tokens)
    if config.use_compile:
        # The blocks are alike: one compilation serves all of them.
        for block in model.transformer.transformer_blocks:
            block.compile()
    count = max(1, config.batch_size // config.num_processes)

    def compute(fraction: float) -> tuple[torch.Tensor, list[float]]:
        if stage.step % config.steps_per_chunk == 0 and bank.num_chunks < config.num_chunks:
            bank.add_chunk()
        indices = rng.integers(len(bank), size=count).tolist()
        latents = pack((bank.pick(indices) - mean[:, None, None]) / std[:, None, None])
        captions = [_training_caption(config, tokenizer, bank.scenes[index], rng) for index in indices]
        with torch.autocast("cpu", torch.bfloat16, enabled=config.use_bfloat16):
            loss = _flow_matching_loss(model, velocity, tokenizer, latents, captions, config.network)
        return loss, [loss.item()]

    def report(recent: Sequence[Sequence[float]]) -> str:
        return f"loss {np.mean(recent):.4f}, {len(bank) * config.num_processes} pictures"

    def extra() -> dict[str, Any]:
        return {"latents_mean": mean, "latents_std": std, "num_chunks": bank.num_chunks}

    stage.run(compute, report, num_warmup_steps=200, num_numbers=1, rank=rank, extra=extra)


def _prepare_latents(
    config: TransformerConfig, vae_config: VaeConfig, out: Path, rank: int, state: dict[str, Any] | None
) -> tuple[LatentBank, torch.Tensor, torch.Tensor]:
    """The latents with the mean and standard deviation of their channels, which all processes share."""
    bank = LatentBank(
        load_trained_vae(vae_config, out),
        out / "latents",
        seed=10 * config.seed + rank,
        chunk_size=config.chunk_size,
        use_compile=config.use_compile,
    )
    num_chunks = config.num_first_chunks if state is None else state["num_chunks"]
    while bank.num_chunks < num_chunks:
        bank.add_chunk()
    mean, std = bank.statistics() if state is None else (state["latents_mean"], state["latents_std"])
    return bank, share(mean), share(std)


def _training_caption(
    config: TransformerConfig, tokenizer: Qwen2Tokenizer, scene: Scene, rng: np.random.Generator
) -> str:
    chance = rng.random()
    if chance < config.dropped_captions:
        return EMPTY_CAPTION
    caption = canonical_caption(scene) if chance > 0.75 else free_caption(scene, rng)
    # A few free captions are long; making room for them would slow every step down.
    is_too_long = len(tokenizer(caption)["input_ids"]) > config.network.num_text_tokens - NUM_END_TOKENS
    return canonical_caption(scene) if is_too_long else caption


def _flow_matching_loss(
    model: TextToImage,
    velocity: nn.Module,
    tokenizer: Qwen2Tokenizer,
    latents: torch.Tensor,
    captions: list[str],
    config: NetworkConfig,
) -> torch.Tensor:
    ids, mask = tokenize(tokenizer, captions, config.num_text_tokens)
    noise, sigma = torch.randn_like(latents), random_sigmas(len(latents))
    noisy = torch.lerp(latents, noise, sigma[:, None, None])
    text = encode_text(model.text_encoder, ids, mask)
    predicted = velocity(noisy, sigma, text, mask[:, NUM_DROPPED_TOKENS:])
    error: torch.Tensor = (predicted.float() - (noise - latents)).square().mean()
    return error


def load_trained_model(
    config: NetworkConfig, latent_channels: int, out: Path
) -> tuple[TextToImage, Qwen2Tokenizer, dict[str, Any]]:
    """The averaged weights of the last checkpoint, the tokenizer, and the checkpoint itself."""
    state = read_trained(out / CHECKPOINT, "transformer", "transformer")
    tokenizer = prepare_tokenizer(out / "tokenizer")
    model = TextToImage(config, tokenizer, latent_channels)
    load_average(model, "model", state)
    return model.eval(), tokenizer, state
