"""From a planned request to the arguments of a pipeline's call."""

import inspect
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve

from sglang_core import (
    CALL_FIELDS,
    CallDescription,
    GenerationRequest,
    RequestError,
    load_images,
    load_mask,
    size_after_image,
)

from .calls import OWN_ARGUMENTS

if TYPE_CHECKING:
    from PIL.Image import Image


def arguments_of(
    pipeline: Any, call: CallDescription, request: GenerationRequest, device: str
) -> tuple[GenerationRequest, dict[str, Any]]:
    """Return the arguments of a call, and the request with the size that the result will have.

    :raises RequestError: if an argument, an image or the mask can not be used.
    """
    own = sorted(OWN_ARGUMENTS & set(request.extra))
    if own:
        raise RequestError(
            f"{', '.join(own)} can not be given in diffusers_kwargs: the host passes it",
            "leave it out; for several outputs use --num-outputs-per-prompt, for another seed --seed",
        )
    signature = set(inspect.signature(type(pipeline).__call__).parameters) - {"self"}
    images = load_images(request.image_path)
    mask = None if request.mask_path is None else load_mask(request.mask_path, images[0].size)
    if images:
        request = _sized(request, call, images[0])

    def takes(name: str) -> bool:
        return name in signature or (call.takes_any and name != "fps")

    arguments: dict[str, Any] = {}
    for field in ("prompt", *CALL_FIELDS):
        value, name = getattr(request, field), call.spellings.get(field, field)
        if value is not None and takes(name):
            arguments[name] = value
    arguments.update(request.extra)
    if call.image_area is not None and request.width and request.height and "width" not in signature:
        size = request.width, request.height  # the pipeline goes by its image
        images, mask = [_at(image, size) for image in images], None if mask is None else _at(mask, size)
    if images:
        arguments["image"] = images[0] if len(images) == 1 else images
    if mask is not None:
        arguments["mask_image"] = mask
    if "output_type" in signature:
        arguments["output_type"] = "np"
    if takes("generator"):
        arguments["generator"] = torch.Generator(device).manual_seed(request.seed)
    else:
        torch.manual_seed(request.seed)
    return request, arguments


def _sized(request: GenerationRequest, call: CallDescription, image: "Image") -> GenerationRequest:
    """Return a request with the size of the result, where that was not known before its image was fetched."""
    if call.image_area is None:
        return request
    given = {"width": request.width, "height": request.height}
    width, height = size_after_image(image.size, call.image_area, call.multiple_of, **given)
    return evolve(request, width=width, height=height)


def _at(image: "Image", size: tuple[int, int]) -> "Image":
    from PIL.Image import Resampling

    return image if image.size == size else image.resize(size, Resampling.LANCZOS)
