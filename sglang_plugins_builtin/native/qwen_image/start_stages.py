"""What a text-to-image run has of its own that starts from an image: its latents, and those that a mask keeps."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from attrs import frozen
from torch.nn import functional

from sglang_core import (
    CallDescription,
    GenerationRequest,
    RequestError,
    StepControl,
    load_images,
    load_mask,
    size_after_image,
)

from ..causal_vae.config import Tiling
from ..causal_vae.latents import normalise
from ..causal_vae.model import CausalVae
from ..engine import ConditioningCache, Residency, RunState, planned, scaled, to_pixels
from ..schedules.flow_match_euler import FlowMatchEuler

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..causal_vae.config import CausalVaeConfig

#: Under this name the encoder has its place; the decoder is the component ``vae``.
ENCODER = "vae encoder"


@frozen(eq=False)
class Start:
    """The image that a run starts from.

    ``latents`` are normalised, (1, channels, 1, rows, columns). ``mask`` is 1 where they are painted anew and 0 where
    they stay, (1, 1, rows, columns); ``None`` if all of them may change.
    """

    latents: torch.Tensor
    mask: torch.Tensor | None = None

    def hold(
        self, schedule: FlowMatchEuler, noise: torch.Tensor, packed: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[torch.Tensor, int], torch.Tensor] | None:
        """Return what puts the masked part back after each step, as noisy as the others are then.

        :param noise: tokens of the noise that the run began with.
        :param packed: turns latents (1, channels, rows, columns) into tokens.
        """
        if self.mask is None:
            return None
        clean = packed(self.latents[:, :, 0])
        mask = packed(self.mask.expand(-1, self.latents.shape[1], -1, -1))

        def hold(latents: torch.Tensor, index: int) -> torch.Tensor:
            return (1 - mask) * schedule.noised(clean, noise, index + 1) + mask * latents

        return hold


def first_step(num_steps: int, strength: float) -> int:
    """Return the step (from 0) with which a run of some strength begins."""
    return int(max(num_steps - min(num_steps * strength, num_steps), 0))


class EncodeStart:
    """Open and encode the image that a request starts from; what was encoded lately is remembered.

    :param load: returns the autoencoder with its encoder and without its decoder; called when it is first needed.
    :param mode: where it lives: ``resident`` or ``component-offload``.
    :param call: how an image is taken.
    """

    name = "encode images"

    def __init__(
        self,
        load: Callable[[], CausalVae],
        config: "CausalVaeConfig",
        residency: Residency,
        tiling: Tiling | None,
        *,
        mode: str,
        call: CallDescription,
    ) -> None:
        self.cache: ConditioningCache[tuple[torch.Tensor, torch.Tensor]] = ConditioningCache(max_entries=4)
        self._load = load
        self._config = config
        self._residency = residency
        self._tiling = tiling
        self._mode = mode
        self._call = call
        self._vae: CausalVae | None = None

    def is_needed(self, request: GenerationRequest) -> bool:
        """Say whether a request starts from an image."""
        return bool(request.image_path)

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the conditions ``start`` and ``size`` (width and height of the result).

        :raises RequestError: if the image or the mask can not be used.
        :raises ModelLoadError: if the encoder is needed for the first time and can not be read.
        """
        request = state.request
        (image,) = load_images(request.image_path)
        mask = None if request.mask_path is None else load_mask(request.mask_path, image.size)
        area = self._call.image_area or image.width * image.height
        size = size_after_image(image.size, area, self._call.multiple_of, width=request.width, height=request.height)
        state.conditions["size"] = size
        image = scaled(image, size)
        dtype = state.conditions["text"].dtype  # of what is drawn too: in another dtype a seed draws other values
        mean, log_variance = self.cache.get_or_make(_key(image), lambda: self._encode(image, control))
        mean, deviation = mean.to(dtype), torch.exp(0.5 * log_variance.to(dtype))
        drawn = torch.randn(mean.shape, generator=state.generator, dtype=dtype, device=state.generator.device)
        latents = normalise(mean + deviation * drawn, self._config)
        state.conditions["start"] = Start(latents, None if mask is None else _latent_mask(scaled(mask, size), latents))

    def _encode(self, image: "Image", control: StepControl) -> tuple[torch.Tensor, torch.Tensor]:
        if self._vae is None:
            self._vae = self._load()
            self._residency.place(ENCODER, self._vae, self._mode)
        self._residency.use(ENCODER)
        pixels = to_pixels(image)[:, :, None].to(self._residency.device)
        return self._vae.encode_distribution(pixels, tiling=self._tiling, check=control.check)


def _latent_mask(mask: "Image", latents: torch.Tensor) -> torch.Tensor:
    """Return 1 for each latent whose first pixel is marked and 0 for the others, as diffusers has it."""
    marked = torch.from_numpy(np.asarray(mask).astype(np.float32) / 255.0 >= 0.5)[None, None]
    return functional.interpolate(marked.float(), size=latents.shape[3:]).to(latents)


def _key(image: "Image") -> tuple[tuple[int, int], bytes]:
    return image.size, hashlib.sha256(image.tobytes()).digest()


def begin(state: RunState, schedule: FlowMatchEuler, noise: torch.Tensor) -> tuple[FlowMatchEuler, torch.Tensor]:
    """Return the steps that a run takes, and its latents before the first: noise, or noise on its image.

    :param noise: (1, channels, rows, columns).
    :raises RequestError: if the strength leaves no step.
    """
    start: Start | None = state.conditions.get("start")
    if start is None:
        return schedule, noise
    num_steps, strength = planned(state.request.num_inference_steps), planned(state.request.strength)
    first = first_step(num_steps, strength)
    if first >= num_steps:
        raise RequestError(f"--strength {strength:g} leaves none of {num_steps} steps", "use a larger --strength")
    schedule = schedule.since(first)
    return schedule, schedule.noised(start.latents[:, :, 0], noise, 0)
