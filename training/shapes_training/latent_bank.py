"""Latents of drawn pictures, encoded once and used many times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

from .captions import training_scene
from .drawing import Scene, draw
from .single_frame import as_frames, encode_mean


class LatentBank:
    """Scenes with their latents, growing by chunks that are kept on disk.

    Every scene is drawn in its middle position: where exactly the edges cross the
    grid of latents is most of what there is to learn, and no caption tells it.

    The scenes of a chunk follow from the seed and its number, so that only the
    latents are stored, and a second run finds them.
    """

    def __init__(
        self, vae: AutoencoderKLQwenImage, folder: Path, *, seed: int, chunk_size: int, use_compile: bool
    ) -> None:
        self.scenes: list[Scene] = []
        self.num_chunks = 0
        self._vae, self._folder, self._seed, self._chunk_size = vae, folder, seed, chunk_size
        self._encode = torch.compile(encode_mean) if use_compile else encode_mean
        self._chunks: list[torch.Tensor] = []

    def __len__(self) -> int:
        return len(self.scenes)

    def add_chunk(self) -> None:
        """Read the next chunk, or draw and encode it."""
        rng = np.random.default_rng((self._seed, 1, self.num_chunks))
        scenes = [training_scene(rng) for _ in range(self._chunk_size)]
        path = self._folder / f"latents-{self._seed}-{self.num_chunks:04d}.pt"
        if path.exists():
            latents = torch.load(path, weights_only=True)
            if len(latents) != self._chunk_size:
                raise ValueError(f"{path} holds {len(latents)} pictures, not {self._chunk_size}: remove the folder")
        else:
            latents = self._encode_scenes(scenes)
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            torch.save(latents, partial)
            partial.replace(path)
        self._chunks.append(latents)
        self.scenes += scenes
        self.num_chunks += 1

    def _encode_scenes(self, scenes: list[Scene]) -> torch.Tensor:
        parts = []
        for start in range(0, len(scenes), 16):
            pictures = np.stack([draw(scene) for scene in scenes[start : start + 16]])
            frames = as_frames(torch.from_numpy(pictures)).squeeze(2)
            frames = frames.contiguous(memory_format=torch.channels_last).unsqueeze(2)
            with torch.no_grad():
                parts.append(self._encode(self._vae, frames)[:, :, 0].half())
        return torch.cat(parts).contiguous()

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of every latent channel over what is in the bank."""
        latents = torch.cat(self._chunks).float()
        return latents.mean((0, 2, 3)), latents.std((0, 2, 3))

    def pick(self, indices: list[int]) -> torch.Tensor:
        """Latents by number, (count, channels, height, width), not normalised."""
        return torch.stack(
            [self._chunks[index // self._chunk_size][index % self._chunk_size] for index in indices]
        ).float()
