"""The stages that Qwen-Image-Edit and Edit-Plus have of their own: input images to conditions."""

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sglang_core import RequestError, StepControl, load_images

from ..causal_vae.config import Tiling
from ..causal_vae.latents import normalise
from ..causal_vae.model import CausalVae
from ..engine import ConditioningCache, Residency, RunState, scaled, to_pixels
from .prompts import PromptTemplate
from .stages import Reference, is_guided, pack
from .tokenizer import Qwen2Tokenizer
from .vision_encoder import ImagePatches, SeenImage, VisionLanguageEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pixels of a reference image for the autoencoder, and of the image that is made where no size is given.
AREA = 1024 * 1024
#: Pixels of an image for the vision tower of Edit-Plus.
SEEN_AREA = 384 * 384
_GRID = 32


def size_of_area(area: int, image: "Image") -> tuple[int, int]:
    """Return width and height of about ``area`` pixels in the shape of ``image``, in multiples of 32."""
    ratio = image.width / image.height
    width = math.sqrt(area * ratio)
    return max(_GRID, round(width / _GRID) * _GRID), max(_GRID, round(width / ratio / _GRID) * _GRID)


class OpenImages:
    """Fetch and open the input images, and choose the size of the result where the request leaves it open."""

    name = "open images"

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the conditions ``images`` and ``size``: of several images the last one gives its shape.

        :raises RequestError: if an image can not be used.
        """
        images = load_images(state.request.image_path)
        state.conditions["images"] = images
        state.conditions["size"] = size_of_area(AREA, images[-1])


class EncodeEdit:
    """Encode prompt and negative prompt together with the images; what was encoded lately is remembered."""

    name = "encode"

    def __init__(
        self,
        encoder: VisionLanguageEncoder,
        tokenizer: Qwen2Tokenizer,
        patches: ImagePatches,
        template: PromptTemplate,
        residency: Residency,
        *,
        seen_area: int,
    ) -> None:
        self.cache: ConditioningCache[torch.Tensor] = ConditioningCache()
        self.seen: ConditioningCache[list[SeenImage]] = ConditioningCache(max_entries=4)
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._patches = patches
        self._template = template
        self._residency = residency
        self._seen_area = seen_area
        self._image_token = tokenizer.id_of("<|image_pad|>")

    def forget(self) -> None:
        """Forget what was encoded and seen: the encoder has other weights."""
        self.cache.clear()
        self.seen.clear()

    def num_steps(self, state: RunState) -> None:
        """Return nothing: it is short."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the conditions ``text`` and, with guidance, ``negative_text``: (1, tokens, size) each.

        :raises RequestError: if a prompt contains the word that stands for an image.
        """
        request = state.request
        images = [scaled(image, size_of_area(self._seen_area, image)) for image in state.conditions["images"]]
        state.conditions["text"] = self._encode(request.prompt, images, control)
        if is_guided(request):
            state.conditions["negative_text"] = self._encode(request.negative_prompt or "", images, control)

    def _encode(self, prompt: str, images: "Sequence[Image]", control: StepControl) -> torch.Tensor:
        control.check()
        key = tuple(_digest(image) for image in images)
        return self.cache.get_or_make((prompt, key), lambda: self._states(prompt, images, key, control))

    def _states(
        self, prompt: str, images: "Sequence[Image]", key: tuple[object, ...], control: StepControl
    ) -> torch.Tensor:
        tokens = self._tokenizer(self._template.text(prompt, len(images)))
        if tokens.count(self._image_token) != len(images):
            raise RequestError("the prompt contains <|image_pad|>, which stands for an image", "leave it out")
        self._residency.use("text_encoder")
        seen = self.seen.get_or_make(key, lambda: self._encoder.see(*self._patches(images)))
        control.check()
        states = self._encoder.encode(tokens, seen, self._image_token)
        return states[None, self._template.num_dropped_tokens :]


class EncodeReferences:
    """Encode the images to the latents that stand beside those of the image that is made."""

    name = "encode images"

    def __init__(self, vae: CausalVae, residency: Residency, tiling: Tiling | None) -> None:
        self._vae = vae
        self._residency = residency
        self._tiling = tiling

    def num_steps(self, state: RunState) -> None:
        """Return nothing: images are few."""
        return

    def run(self, state: RunState, control: StepControl) -> None:
        """Set the condition ``references``."""
        self._residency.use("vae")
        dtype = state.conditions["text"].dtype
        state.conditions["references"] = [
            self._reference(image, dtype, control) for image in state.conditions["images"]
        ]

    def _reference(self, image: "Image", dtype: torch.dtype, control: StepControl) -> Reference:
        config = self._vae.config
        pixels = to_pixels(scaled(image, size_of_area(AREA, image)))[:, :, None]
        latents = self._vae.encode(pixels.to(self._residency.device), tiling=self._tiling, check=control.check)
        tokens = pack(normalise(latents, config)[:, :, 0])
        rows, columns = latents.shape[3] // 2, latents.shape[4] // 2
        return Reference(tokens.to(dtype), rows, columns)


def _digest(image: "Image") -> tuple[tuple[int, int], bytes]:
    return image.size, hashlib.sha256(image.tobytes()).digest()
