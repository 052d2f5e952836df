"""From the autoencoder's latents to those a transformer is trained on, and from frames to patches."""

import torch

from .config import CausalVaeConfig


def normalise(latents: torch.Tensor, config: CausalVaeConfig) -> torch.Tensor:
    """Return encoded latents (batch, z_dim, ...) with mean 0 and deviation 1 per channel, as transformers take them."""
    mean, std = _statistics(latents, config)
    return (latents - mean) / std


def denormalise(latents: torch.Tensor, config: CausalVaeConfig) -> torch.Tensor:
    """Return a transformer's latents (batch, z_dim, ...) as the decoder takes them."""
    mean, std = _statistics(latents, config)
    return latents * std + mean


def _statistics(latents: torch.Tensor, config: CausalVaeConfig) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, -1, *(1,) * (latents.dim() - 2))
    return latents.new_tensor(config.latents_mean).view(shape), latents.new_tensor(config.latents_std).view(shape)


def patchify(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Fold squares of ``size`` pixels of (batch, channels, frames, height, width) into channels."""
    if size == 1:
        return frames
    batch, channels, num_frames, height, width = frames.shape
    # (batch, channels, frames, rows, row in patch, columns, column in patch); columns count before rows
    patches = frames.reshape(batch, channels, num_frames, height // size, size, width // size, size)
    return patches.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def unpatchify(patches: torch.Tensor, size: int) -> torch.Tensor:
    """Undo ``patchify``."""
    if size == 1:
        return patches
    batch, channels, num_frames, rows, columns = patches.shape
    pixels = patches.reshape(batch, channels // size**2, size, size, num_frames, rows, columns)
    return pixels.permute(0, 1, 4, 5, 3, 6, 2).reshape(batch, -1, num_frames, rows * size, columns * size)
