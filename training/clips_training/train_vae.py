"""Train the autoencoder: AutoencoderKLWan on freshly drawn clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import gt
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, WanResidualBlock
from numpy.typing import NDArray

from shapes_training.drawing import BACKGROUNDS, COLOURS
from shapes_training.optimizers import Optimizers
from shapes_training.parallel import run_processes
from shapes_training.products import use_bf16_products
from shapes_training.stage import Stage, load_average, read_trained
from shapes_training.train_vae import reconstruction_loss

from .clips import FRAME_SIZE, NUM_FRAMES, SHAPES, draw_path, path_of, random_clip, random_path
from .whole_clip import as_clips, decode_unclamped, encode_mean, use_whole_clips

CHECKPOINT = "vae.pt"


@frozen(kw_only=True)
class VaeConfig:
    """Shape and training of the autoencoder."""

    base_dim: int = 16
    z_dim: int = 8
    #: One level less than Wan's: of eight pixels to a latent, little would be left of a shape as small as these.
    dim_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 1
    #: Training time; the learning rate falls to zero within it.
    minutes: float = field(default=30.0, validator=gt(0))
    #: Last part of the training, on whole clips in place of crops.
    whole_clip_fraction: float = 0.4
    #: Crops in one step, over all processes; whole clips are a quarter as many.
    batch_size: int = field(default=8, validator=gt(0))
    crop_size: int = 32
    num_crop_frames: int = 9
    num_processes: int = field(default=2, validator=gt(0))
    peak_learning_rate: float = 1e-3
    #: Standard deviation of the noise added to the latents: the decoder learns to forgive.
    latent_noise: float = 0.1
    seed: int = 0
    use_compile: bool = True
    #: Stop early, after so many steps of this run.
    max_steps: int | None = None

    @property
    def spatial_factor(self) -> int:
        """Pixels to a latent, per side."""
        return 1 << (len(self.dim_mult) - 1)


def create_vae(config: VaeConfig) -> AutoencoderKLWan:
    """An untrained autoencoder, initialised to treat each frame alone."""
    vae = AutoencoderKLWan(
        base_dim=config.base_dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        temperal_downsample=[True] * (len(config.dim_mult) - 1),
        scale_factor_spatial=config.spatial_factor,
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
    )
    _initialise(vae)
    return vae


@torch.no_grad()
def _initialise(vae: AutoencoderKLWan) -> None:
    """Draw weights that keep the variance on one frame; weights for earlier frames begin at zero."""
    for module in vae.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            num_inputs = module.in_channels * module.kernel_size[-1] * module.kernel_size[-2]
            torch.nn.init.normal_(module.weight, std=num_inputs**-0.5)
            assert module.bias is not None
            torch.nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, WanResidualBlock):
            module.conv2.weight.mul_(0.3)
    _hold_frames(vae)


@torch.no_grad()
def _hold_frames(vae: AutoencoderKLWan) -> None:
    """Ignore earlier frames, and make every change of the frame rate begin with the nearest one."""
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight[:, :, :-1] = 0
    for module in vae.modules():
        if not isinstance(module, WanResample) or not module.mode.endswith("3d"):
            continue
        weight = module.time_conv.weight
        # weight: (channels or twice as many, channels, 3, 1, 1)
        weight.zero_()
        same = torch.eye(weight.shape[1])
        weight[:, :, -1, 0, 0] = same.repeat(weight.shape[0] // weight.shape[1], 1)
        torch.nn.init.zeros_(module.time_conv.bias)


def draw_crops(rng: np.random.Generator, count: int, size: int, num_frames: int) -> NDArray[np.uint8]:
    """Cut pieces in space and time out of random clips, on the way of the shape: that is what has to be learned.

    A piece as large as a clip is a whole clip, half of them as captions describe them.
    """
    is_whole = size == FRAME_SIZE and num_frames == NUM_FRAMES
    crops = np.empty((count, num_frames, size, size, 3), np.uint8)
    for index in range(count):
        if is_whole and rng.random() < 0.5:
            clip = random_clip(rng)
            crops[index] = draw_path(clip.colour, clip.shape, clip.background, path_of(clip))
            continue
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
        colours = [colour for colour in COLOURS if colour != background]
        colour, shape = colours[rng.integers(len(colours))], SHAPES[rng.integers(len(SHAPES))]
        path = random_path(rng)
        start = int(rng.integers(NUM_FRAMES - num_frames + 1))
        path = path[start : start + num_frames]
        frames = draw_path(colour, shape, background, path)
        x, y, _ = path[rng.integers(num_frames)] * FRAME_SIZE / 128
        left, top = (
            int(np.clip(middle - size / 2 + rng.uniform(-0.4, 0.4) * size, 0, FRAME_SIZE - size)) for middle in (x, y)
        )
        crops[index] = frames[:, top : top + size, left : left + size]
    return crops


def clip_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of pictures on every frame, plus L1 of the steps from frame to frame."""
    # output, target: (batch, 3, frames, height, width)
    frames = reconstruction_loss(output.transpose(1, 2).flatten(0, 1), target.transpose(1, 2).flatten(0, 1))
    if target.shape[2] == 1:
        return frames
    return frames + (output.diff(dim=2) - target.diff(dim=2)).abs().mean()


class _Autoencode(torch.nn.Module):
    """Encoder, noise and decoder as one module, so that they compile as one graph."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, clips: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = encode_mean(self.vae, clips)
        return decode_unclamped(self.vae, mean + noise), mean


def train_vae(config: VaeConfig, out: Path) -> None:
    """Train, or go on training, until the time is used up; the result is the checkpoint."""
    run_processes(config.num_processes, out, partial(_train, config, out))


def _train(config: VaeConfig, out: Path, rank: int) -> None:
    torch.manual_seed(config.seed)
    vae = create_vae(config)
    use_whole_clips(vae)
    use_bf16_products(vae)
    optimizers = Optimizers([], list(vae.parameters()), config.peak_learning_rate, weight_decay=0.0)
    stage = Stage("autoencoder", out / CHECKPOINT, vae, optimizers, config, keys=("vae", "optimizer"), decay=0.998)
    # Every process draws clips of its own.
    torch.manual_seed(1000 * stage.step + rank)
    rng = np.random.default_rng((config.seed, stage.step, rank))
    autoencode = _Autoencode(vae)
    compiled = torch.compile(autoencode) if config.use_compile else autoencode
    count = max(1, config.batch_size // config.num_processes)

    def compute(fraction: float) -> tuple[torch.Tensor, list[float]]:
        is_whole = fraction > 1.0 - config.whole_clip_fraction
        # The second size is short: compiling for it would take longer than it saves.
        return _step_loss(autoencode if is_whole else compiled, config, rng, count, is_whole=is_whole)

    def report(recent: Sequence[Sequence[float]]) -> str:
        l1, scale = recent[-1]
        return f"L1 {l1:.4f}, latents {scale:.2f}"

    stage.run(compute, report, num_warmup_steps=100, num_numbers=2, rank=rank)


def _step_loss(
    autoencode: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    config: VaeConfig,
    rng: np.random.Generator,
    count: int,
    *,
    is_whole: bool,
) -> tuple[torch.Tensor, list[float]]:
    """The loss, and the plain L1 and the spread of the latents."""
    size, num_frames = (FRAME_SIZE, NUM_FRAMES) if is_whole else (config.crop_size, config.num_crop_frames)
    count = max(1, count // 4) if is_whole else count
    clips = as_clips(torch.from_numpy(draw_crops(rng, count, size, num_frames)))
    grid = ((num_frames - 1) // 4 + 1, size // config.spatial_factor, size // config.spatial_factor)
    noise = config.latent_noise * torch.randn(count, config.z_dim, *grid)
    output, mean = autoencode(clips, noise)
    loss = clip_loss(output, clips) + 1e-3 * mean.square().mean()
    return loss, [(output - clips).abs().mean().item(), mean.std().item()]


def load_trained_vae(config: VaeConfig, out: Path) -> AutoencoderKLWan:
    """The averaged weights of the last checkpoint.

    :raises FileNotFoundError: if there is none.
    """
    state = read_trained(out / CHECKPOINT, "autoencoder", "vae")
    vae = create_vae(config)
    load_average(vae, "vae", state)
    return vae.eval()
