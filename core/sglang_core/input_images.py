"""Images to start from: fetched, opened, turned upright, in RGB; and the masks that belong to them."""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import RequestError
from .fetcher import load_input, shown_reference

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

#: Larger images are refused: a small file can unpack to gigabytes.
MAX_PIXELS = 100_000_000
#: Tag of EXIF, and its values of images that lie on their side.
_ORIENTATION, _ON_THEIR_SIDE = 0x0112, frozenset({5, 6, 7, 8})
#: From this value on, of 255, a pixel of a mask counts as marked.
_MARKED = 128


def load_images(references: Sequence[str]) -> "list[Image]":
    """Load input images in their order.

    :raises RequestError: if one cannot be fetched, or is no image of at most ``MAX_PIXELS``.
    """
    return [_load_upright(reference).convert("RGB") for reference in references]


def load_mask(reference: str, image_size: Size) -> "Image":
    """Load a mask as greyscale: white (255) where its image is painted anew, black (0) where it stays.

    In a file with transparency the transparent part is painted anew, as in OpenAI's API; in one that is opaque all over
    the white part, as in diffusers.

    :param image_size: width and height of the image.
    :raises RequestError: if it can not be read, has another size than the image, or marks nothing.
    """
    mask = _load_upright(reference)
    check_mask_size(mask.size, image_size)
    if mask.has_transparency_data:
        opacity = mask.convert("RGBA").getchannel("A")
        if opacity.getextrema() != (255, 255):
            return _marking(opacity.point(lambda value: 255 - value))
    return _marking(mask.convert("L"))


def _marking(mask: "Image") -> "Image":
    _, most = mask.getextrema()
    if not isinstance(most, int | float) or most < _MARKED:
        remedy = "make the part to paint anew transparent or, in a file without transparency, white"
        raise RequestError("--mask-path: the mask marks nothing", remedy)
    return mask


def check_mask_size(mask_size: Size, image_size: Size) -> None:
    """Refuse a mask of another size than its image.

    :raises RequestError: naming both sizes.
    """
    if mask_size != image_size:
        given, wanted = ("{} x {}".format(*size) for size in (mask_size, image_size))
        raise RequestError(
            f"--mask-path: the mask has {given} pixels, its image {wanted}", "give a mask of the size of the image"
        )


def read_image_size(reference: str) -> Size | None:
    """Return width and height of an image once it is upright, from its header; ``None`` for one that must be fetched.

    :raises RequestError: if it is no image of at most ``MAX_PIXELS``.
    """
    if reference.partition(":")[0].lower() in {"http", "https"}:
        return None
    with _open_image(reference) as image:
        # A PNG that does not tell before its pixels would be decoded to ask it.
        is_told = image.format != "PNG" or "exif" in image.info
        turned = image.getexif().get(_ORIENTATION) if is_told else None
        return (image.height, image.width) if turned in _ON_THEIR_SIDE else (image.width, image.height)


def size_after_image(
    image_size: Size, max_area: int, grid: int, *, width: int | None = None, height: int | None = None
) -> Size:
    """Return a size in the shape of an image, on a grid: its own, or a smaller one if that is more than ``max_area``.

    :param width: where it is given, with or without ``height``, it stays.
    """
    scale = min(1.0, math.sqrt(max_area / (image_size[0] * image_size[1])))
    if width is not None or height is not None:
        scale = width / image_size[0] if width is not None else (height or grid) / image_size[1]
    wide, high = (max(grid, round(side * scale / grid) * grid) for side in image_size)
    return width or wide, height or high


def _load_upright(reference: str) -> "Image":
    from PIL import ImageOps

    with _open_image(reference) as image:
        return ImageOps.exif_transpose(image)


@contextmanager
def _open_image(reference: str) -> "Iterator[Image]":
    """Open an image, whose pixels are not decoded yet; what goes wrong with it is one sentence."""
    from PIL import Image, UnidentifiedImageError

    content = load_input(reference)
    shown = shown_reference(reference)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit stands below it
            image = Image.open(io.BytesIO(content))
        if image.width * image.height > MAX_PIXELS:
            raise RequestError(
                f"{shown} has {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read",
                "give a smaller image",
            )
        yield image
    except UnidentifiedImageError as error:
        raise RequestError(f"{shown} is not an image", "give a PNG, JPEG or WebP file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"{shown} can not be read as an image: {error}", "give another copy of it") from error
