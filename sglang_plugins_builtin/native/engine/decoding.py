"""The stage that decodes latents by the causal autoencoder, which several families share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import evolve

from sglang_core import MediaKind, StepControl

from ..causal_vae.config import Tiling
from ..causal_vae.latents import denormalise
from ..causal_vae.model import CausalVae
from .frames import to_media
from .residency import Residency
from .state import RunState


class Decode:
    """Turn the latents into a picture or clip.

    :param latents_of: returns the normalised latents (1, channels, frames, height, width) of a run that is denoised.
    """

    name = "decode"

    def __init__(
        self,
        vae: CausalVae,
        residency: Residency,
        tiling: Tiling | None,
        *,
        kind: MediaKind,
        latents_of: Callable[[RunState], torch.Tensor],
    ) -> None:
        self._vae = vae
        self._residency = residency
        self._tiling = tiling
        self._kind: MediaKind = kind
        self._latents_of = latents_of

    def num_steps(self, state: RunState) -> None:
        """Return nothing: the chunks of tiles are no steps a user knows."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the media."""
        latents = self._latents_of(state).to(self._vae.dtype)
        self._residency.use("vae")
        decoded = self._vae.decode(denormalise(latents, self._vae.config), tiling=self._tiling, check=control.check)
        state.media = to_media(decoded[0], self._kind, fps=state.request.fps)

    def picture(self, state: RunState, clean: torch.Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """Return what the clean latents look like, of a clip the first frame: uint8 (1, height, width, 3)."""
        latents = self._latents_of(evolve(state, latents=clean))[:, :, :1].to(self._vae.dtype)
        self._residency.use("vae")
        decoded = self._vae.decode(denormalise(latents, self._vae.config), tiling=self._tiling)
        frames: np.ndarray[Any, np.dtype[np.uint8]] = to_media(decoded[0], "image").frames[:1, :, :, :3]
        return frames
