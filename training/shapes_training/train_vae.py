"""Train the autoencoder: AutoencoderKLQwenImage on freshly drawn pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from attrs import field, frozen
from attrs.validators import gt
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import (
    AutoencoderKLQwenImage,
    QwenImageResidualBlock,
)
from numpy.typing import NDArray

from .drawing import draw, layout, random_scene
from .optimizers import Optimizers
from .single_frame import as_frames, decode_unclamped, encode_mean, use_single_frame_convolutions
from .stage import Stage, load_average, read_trained

CHECKPOINT = "vae.pt"


@frozen(kw_only=True)
class VaeConfig:
    """Shape and training of the autoencoder."""

    base_dim: int = 16
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 1
    #: Training time; the learning rate falls to zero within it.
    minutes: float = field(default=25.0, validator=gt(0))
    #: Last part of the training, on whole pictures in place of crops of a quarter of the area.
    whole_picture_fraction: float = 0.15
    batch_size: int = field(default=16, validator=gt(0))
    peak_learning_rate: float = 1e-3
    #: Standard deviation of the noise added to the latents: the decoder learns to forgive.
    latent_noise: float = 0.1
    seed: int = 0
    use_compile: bool = True
    #: Stop early, after so many steps of this run.
    max_steps: int | None = None


def create_vae(config: VaeConfig) -> AutoencoderKLQwenImage:
    """An untrained autoencoder, initialised for single frames."""
    vae = AutoencoderKLQwenImage(
        base_dim=config.base_dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
    )
    _initialise(vae)
    return vae


def _initialise(vae: AutoencoderKLQwenImage) -> None:
    """Draw weights that keep the variance on one frame.

    torch's own initialisation counts the temporal slices that a single frame never
    meets, and is small besides: the loss then stands still for hundreds of steps.
    """
    for module in vae.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            num_inputs = module.in_channels * module.kernel_size[-1] * module.kernel_size[-2]
            torch.nn.init.normal_(module.weight, std=num_inputs**-0.5)
            assert module.bias is not None
            torch.nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, QwenImageResidualBlock):
            module.conv2.weight.data.mul_(0.3)


def draw_crops(rng: np.random.Generator, count: int, size: int) -> NDArray[np.uint8]:
    """Cut squares out of random pictures, near a shape: edges are what has to be learned."""
    crops = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        scene = random_scene(rng)
        placed = layout(scene)
        x, y, _ = placed[rng.integers(len(placed))]
        shift = 128 - size
        left = int(np.clip(x - size / 2 + rng.uniform(-24, 24), 0, shift))
        top = int(np.clip(y - size / 2 + rng.uniform(-24, 24), 0, shift))
        crops[index] = draw(scene, rng)[top : top + size, left : left + size]
    return crops


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 that counts pixels near edges five times, plus L1 of the horizontal and vertical steps."""
    # output, target: (batch, 3, height, width)
    step_x, step_y = target.diff(dim=3), target.diff(dim=2)
    edges = functional.pad(step_x.abs().sum(1, keepdim=True), (0, 1)) + functional.pad(
        step_y.abs().sum(1, keepdim=True), (0, 0, 0, 1)
    )
    near = functional.max_pool2d(edges.clamp(0, 1), 5, stride=1, padding=2)
    weighted = ((output - target).abs() * (1.0 + 4.0 * near)).mean()
    steps = (output.diff(dim=3) - step_x).abs().mean() + (output.diff(dim=2) - step_y).abs().mean()
    return weighted + steps


class _Autoencode(torch.nn.Module):
    """Encoder, noise and decoder as one module, so that they compile as one graph."""

    def __init__(self, vae: AutoencoderKLQwenImage) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, frames: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = encode_mean(self.vae, frames)
        return decode_unclamped(self.vae, mean + noise), mean


def train_vae(config: VaeConfig, out: Path) -> None:
    """Train, or go on training, until the time is used up; the result is the checkpoint."""
    torch.manual_seed(config.seed)
    vae = create_vae(config)
    use_single_frame_convolutions(vae)
    optimizers = Optimizers([], list(vae.parameters()), config.peak_learning_rate, weight_decay=0.0)
    stage = Stage("autoencoder", out / CHECKPOINT, vae, optimizers, config, keys=("vae", "optimizer"), decay=0.998)
    rng = np.random.default_rng((config.seed, stage.step))
    autoencode = _Autoencode(vae)
    compiled = torch.compile(autoencode) if config.use_compile else autoencode

    def compute(fraction: float) -> tuple[torch.Tensor, list[float]]:
        is_whole = fraction > 1.0 - config.whole_picture_fraction
        size, count = (128, max(1, config.batch_size // 4)) if is_whole else (64, config.batch_size)
        frames = as_frames(torch.from_numpy(draw_crops(rng, count, size)))
        frames = frames.squeeze(2).contiguous(memory_format=torch.channels_last).unsqueeze(2)
        noise = config.latent_noise * torch.randn(count, config.z_dim, 1, size // 8, size // 8)
        # The second size is short: compiling for it would take longer than it saves.
        output, mean = (autoencode if is_whole else compiled)(frames, noise)
        error = reconstruction_loss(output[:, :, 0], frames[:, :, 0])
        loss = error + 1e-3 * mean.square().mean()
        return loss, [error.item(), (output - frames).abs().mean().item(), mean.std().item()]

    def report(recent: Sequence[Sequence[float]]) -> str:
        error, l1, scale = recent[-1]
        return f"loss {error:.4f}, L1 {l1:.4f}, latents {scale:.2f}"

    stage.run(compute, report, num_warmup_steps=100, num_numbers=3)


def load_trained_vae(config: VaeConfig, out: Path) -> AutoencoderKLQwenImage:
    """The averaged weights of the last checkpoint, with single-frame convolutions."""
    state = read_trained(out / CHECKPOINT, "autoencoder", "vae")
    vae = create_vae(config)
    load_average(vae, "vae", state)
    use_single_frame_convolutions(vae)
    return vae.eval()
