"""The images and the mask of a request: whether the model takes them, which call does, and the size that follows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from .backends import CallDescription
from .errors import ConfigError, RequestError
from .input_images import check_mask_size, read_image_size, size_after_image
from .options import Settings
from .options.host import SamplingOptions

#: Names the backends that would take such inputs, where the one that is asked does not: with an image, with a mask.
OtherBackends = Callable[[bool, bool], Sequence[str]]


@frozen(kw_only=True)
class PlannedInputs:
    """What a request starts from, and the call that takes it."""

    call: CallDescription
    images: tuple[str, ...] = ()
    mask: str | None = None
    #: Width and height of the first image; ``None`` where nothing depends on it, or before it is fetched.
    image_size: tuple[int, int] | None = None


def plan_inputs(
    call: CallDescription, settings: Settings, *, may_lack: bool, other_backends: OtherBackends | None = None
) -> PlannedInputs:
    """Return images and mask of the settings with the call that takes them.

    :param may_lack: whether they may come later.
    :raises RequestError: if the model does not take them, needs what is not there, or they do not fit together.
    :raises ConfigError: if a file is not there.
    """
    options = settings.of(SamplingOptions)
    images, mask = options.image_path, options.mask_path
    if mask is not None and not images:
        raise RequestError("--mask-path is given without an image", "give the image it belongs to with --image-path")
    chosen = call.for_inputs(image=bool(images), mask=mask is not None)
    if chosen is None:
        raise _refusal(mask is not None, other_backends)
    _check_number(chosen, images, mask, may_lack)
    for flag, reference in (*(("--image-path", image) for image in images), ("--mask-path", mask)):
        if reference is not None and not _is_there(reference):
            raise ConfigError(f"{flag} {reference}: there is no such file", "check the path")
    depends = bool(images) and (mask is not None or chosen.image_area is not None)
    image_size = read_image_size(images[0]) if depends else None
    mask_size = None if mask is None else read_image_size(mask)
    if mask_size is not None and image_size is not None:
        check_mask_size(mask_size, image_size)
    return PlannedInputs(call=chosen, images=images, mask=mask, image_size=image_size)


def _refusal(has_mask: bool, other_backends: OtherBackends | None) -> RequestError:
    others = other_backends(True, has_mask) if other_backends is not None else ()
    remedy = f"load it with {' or '.join(f'--backend {name}' for name in others)}"
    if not has_mask:
        problem = "--image-path does not apply: this model takes no image"
        return RequestError(problem, remedy if others else "leave it out")
    if others:
        return RequestError("--mask-path does not apply: this backend does not inpaint with this model", remedy)
    problem = "--mask-path does not apply: this model has no inpainting pipeline"
    return RequestError(problem, "leave it out, or choose a model that inpaints")


def _check_number(call: CallDescription, images: tuple[str, ...], mask: str | None, may_lack: bool) -> None:
    if not images and "image" in call.required and not may_lack:
        raise RequestError("this model starts from an image, and none is given", "give one with --image-path FILE")
    if mask is None and "mask_image" in call.required and not may_lack:
        raise RequestError("this model paints inside of a mask, and none is given", "give one with --mask-path FILE")
    if call.max_images is not None and len(images) > call.max_images:
        most = "one image" if call.max_images == 1 else f"at most {call.max_images} images"
        raise RequestError(f"this model starts from {most}, not {len(images)}", f"give {most}")


def _is_there(reference: str) -> bool:
    return "://" in reference or reference.startswith("data:") or Path(reference).expanduser().is_file()


def complete_image_size(values: dict[str, Any], reasons: dict[str, str], inputs: PlannedInputs) -> None:
    """Take each side that is not given from the image, where the call makes the result in its shape."""
    call, size = inputs.call, inputs.image_size
    if call.image_area is None or size is None:
        return
    given = {"width": values.get("width"), "height": values.get("height")}
    fitting = size_after_image(size, call.image_area, call.multiple_of, **given)
    for name, side in zip(given, fitting, strict=True):
        if given[name] is None:
            values[name], reasons[name] = side, "from the image of {} x {}".format(*size)
