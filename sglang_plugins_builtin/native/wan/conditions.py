"""What image-to-video models are given beside the noise: encoded frames and where they are."""

from collections.abc import Callable

import torch

#: Encodes a clip (batch, 3, frames, height, width) in [-1, 1] to the mode of its latents, normalised as the transformer
#: knows them: (batch, channels, latent frames, latent height, latent width).
EncodeClip = Callable[[torch.Tensor], torch.Tensor]


def image_condition(
    encode: EncodeClip,
    first: torch.Tensor,
    *,
    last: torch.Tensor | None = None,
    num_frames: int,
    temporal_factor: int = 4,
) -> torch.Tensor:
    """Return what Wan 2.1 and 2.2 image-to-video models take as further input channels at every step.

    The clip that is encoded has the given frames at its ends and zeros between them. The mask before it has one
    channel for each frame that a latent frame stands for (the first stands for one, repeated) and is 1 where the
    frame is given.

    :param first: (batch, 3, height, width) in [-1, 1]; ``last`` alike.
    :param num_frames: of the clip, one more than a multiple of ``temporal_factor``.
    :returns: float32 (batch, temporal_factor + channels, latent frames, latent height, latent width).
    """
    ends = [first.unsqueeze(2)] + ([] if last is None else [last.unsqueeze(2)])
    empty = first.new_zeros(*first.shape[:2], num_frames - len(ends), *first.shape[2:])
    latents = encode(torch.cat([ends[0], empty, *ends[1:]], dim=2)).float()
    mask = latents.new_zeros(latents.shape[0], temporal_factor, *latents.shape[2:])
    mask[:, :, 0] = 1
    if last is not None:
        mask[:, -1, -1] = 1
    return torch.cat([mask, latents], dim=1)


def first_frame_condition(encode: EncodeClip, first: torch.Tensor) -> torch.Tensor:
    """Return the latents of the first frame for models that take a timestep for each token (``expand_timesteps``).

    :param first: (batch, 3, height, width) in [-1, 1].
    :returns: float32 (batch, channels, 1, latent height, latent width), for :func:`with_first_frame`.
    """
    return encode(first.unsqueeze(2)).float()


def with_first_frame(latents: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Return the latents with their first frame replaced: what the transformer sees, and what is decoded.

    :param latents: (batch, channels, frames, height, width).
    :param first: (batch or 1, channels, 1, height, width).
    """
    first = first.to(latents.dtype).expand(latents.shape[0], -1, -1, -1, -1)
    return torch.cat([first, latents[:, :, 1:]], dim=2)


def token_timesteps(timesteps: torch.Tensor, grid: tuple[int, int, int], *, first_is_given: bool) -> torch.Tensor:
    """Return the timestep of every token at every step, for ``expand_timesteps``: a given first frame has no noise.

    :param timesteps: (steps,).
    :param grid: frames, rows and columns of tokens.
    :returns: float32 (steps, tokens).
    """
    frames, rows, columns = grid
    tokens = timesteps.float().unsqueeze(1).repeat(1, frames * rows * columns)
    if first_is_given:
        tokens[:, : rows * columns] = 0
    return tokens
