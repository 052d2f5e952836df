"""The file formats of results: PNG, JPEG, WebP and GIF by Pillow, MP4 by PyAV; each file carries its receipt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .checks import CHECKS
from .encoders import GifEncoder, JpegEncoder, Mp4Encoder, PngEncoder, WebpEncoder

if TYPE_CHECKING:
    from sglang_core import Check, MediaEncoder


@hookimpl
def sglang_register_media_encoders() -> Sequence[MediaEncoder]:
    """Add the five formats."""
    return [PngEncoder(), JpegEncoder(), WebpEncoder(), GifEncoder(), Mp4Encoder()]


@hookimpl
def sglang_register_checks() -> Sequence[Check]:
    """Add the questions whether the libraries behind them work."""
    return CHECKS
