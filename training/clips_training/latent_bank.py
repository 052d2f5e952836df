"""Latents of all clips to train on, encoded once and used many times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from shapes_training.products import multiplies_bf16_fast, use_bf16_products

from .captions import training_clips
from .clips import Clip, draw_clip
from .whole_clip import as_clips, encode_mean, use_whole_clips


class LatentBank:
    """One process's share of the clips with their latents, which are kept on disk.

    There is one clip for every canonical caption: where exactly the edges cross the grid
    of latents is most of what there is to learn, and no caption tells it.

    :param rank: of this process.
    :param num_parts: into how many shares the clips are divided.
    :param max_clips: how many to use of this share, for quick trials; None for all.
    """

    def __init__(
        self,
        vae: AutoencoderKLWan,
        folder: Path,
        *,
        rank: int,
        num_parts: int,
        max_clips: int | None,
        use_compile: bool,
    ) -> None:
        self.clips: list[Clip] = training_clips()[rank::num_parts][:max_clips]
        path = folder / f"latents-{rank}-of-{num_parts}.pt"
        if path.exists():
            self.latents: torch.Tensor = torch.load(path, weights_only=True)
            if len(self.latents) != len(self.clips):
                raise ValueError(f"{path} holds {len(self.latents)} clips, not {len(self.clips)}: remove the folder")
            return
        self.latents = _encode(vae, self.clips, use_compile=use_compile)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(self.latents, partial)
        partial.replace(path)

    def __len__(self) -> int:
        return len(self.clips)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of every latent channel over what is in the bank."""
        latents = self.latents.float()
        return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))

    def pick(self, indices: list[int]) -> torch.Tensor:
        """Latents by number, (count, channels, frames, height, width), not normalised."""
        return self.latents[indices].float()


def _encode(vae: AutoencoderKLWan, clips: list[Clip], *, use_compile: bool, batch_size: int = 8) -> torch.Tensor:
    """Encode clips; changes the autoencoder to work on whole ones."""
    use_whole_clips(vae)
    use_bf16_products(vae)
    # Compiled, convolutions in bfloat16 that need no gradient came out as NaN (torch 2.13); they are fast as they are.
    encode = torch.compile(encode_mean) if use_compile and not multiplies_bf16_fast() else encode_mean
    parts = []
    with torch.no_grad():
        for start in range(0, len(clips), batch_size):
            frames = np.stack([draw_clip(clip) for clip in clips[start : start + batch_size]])
            parts.append(encode(vae, as_clips(torch.from_numpy(frames))).half())
    latents = torch.cat(parts).contiguous()
    if not latents.isfinite().all():
        raise ValueError("the autoencoder gives latents that are not finite: train it again")
    return latents
