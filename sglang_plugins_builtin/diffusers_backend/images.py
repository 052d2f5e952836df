"""Images to start from: fetched, opened, turned upright, in RGB."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglang_core import RequestError, load_input, shown_reference

if TYPE_CHECKING:
    from PIL.Image import Image

#: Larger images are refused: a small file can unpack to gigabytes.
MAX_PIXELS = 100_000_000


def load_images(references: Sequence[str]) -> "list[Image]":
    """Load input images in their order.

    :raises RequestError: if one cannot be fetched, or is no image of at most ``MAX_PIXELS``.
    """
    return [_load_image(reference) for reference in references]


def _load_image(reference: str) -> "Image":
    from PIL import Image, ImageOps, UnidentifiedImageError

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
        return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise RequestError(f"{shown} is not an image", "give a PNG, JPEG or WebP file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"{shown} can not be read as an image: {error}", "give another copy of it") from error
