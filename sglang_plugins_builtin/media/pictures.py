"""PNG and JPEG."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sglang_core import EncodingOptions, GeneratedMedia, Receipt

from .receipts import SOFTWARE, describe, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

#: zlib's own default: 9 takes several times as long for a few per cent.
_PNG_LEVEL = 6
_JPEG_SEGMENT_BYTES = 65533
_FULL_CHROMA_QUALITY = 90
_EXIF_DESCRIPTION, _EXIF_SOFTWARE = 0x010E, 0x0131


def on_white(frame: "numpy.ndarray[Any, Any]") -> "numpy.ndarray[Any, Any]":
    """Return a uint8 RGB frame (height, width, 3), with what was transparent composited on white."""
    if frame.shape[2] == 3:
        return frame
    alpha = frame[:, :, 3:].astype(numpy.uint16)
    mixed = frame[:, :, :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(numpy.uint8)


def exif_fields(receipt: Receipt) -> Image.Exif:
    """Return the fields that file managers show."""
    fields = Image.Exif()
    fields[_EXIF_SOFTWARE] = SOFTWARE
    description = describe(receipt)
    if description:
        fields[_EXIF_DESCRIPTION] = description.encode()  # readers take UTF-8, though the standard has ASCII only
    return fields


def write_png(media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
    """Write a picture without loss. ``compression`` is the effort: 0 stores the pixels, 100 makes the smallest file."""
    texts = PngInfo()
    texts.add_text("Software", SOFTWARE)
    if description := describe(receipt):
        texts.add_itxt("Description", description)
    if comment := pack(receipt):
        texts.add_itxt("Comment", comment.decode())
    level = _PNG_LEVEL if options.compression is None else round(options.compression * 9 / 100)
    encoded = BytesIO()
    Image.fromarray(media.frames[0]).save(encoded, "PNG", compress_level=level, pnginfo=texts)
    path.write_bytes(encoded.getbuffer())


def write_jpeg(media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
    """Write a picture with the quality ``compression``; from 90 on, colours keep their full resolution."""
    quality = options.quality("image")
    encoded = BytesIO()
    Image.fromarray(on_white(media.frames[0])).save(
        encoded,
        "JPEG",
        quality=max(1, quality),
        subsampling="4:4:4" if quality >= _FULL_CHROMA_QUALITY else "4:2:0",
        exif=exif_fields(receipt),
    )
    content = encoded.getvalue()
    # Pillow writes one comment segment, which ends after 64 KB; the format allows many.
    head = _end_of_application_segments(content)
    path.write_bytes(b"".join([content[:head], *_comment_segments(pack(receipt) or b""), content[head:]]))


def _end_of_application_segments(jpeg: bytes) -> int:
    """Return where JFIF and Exif end, which readers expect before everything else."""
    position = 2
    while jpeg[position] == 0xFF and 0xE0 <= jpeg[position + 1] <= 0xEF:
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return position


def _comment_segments(comment: bytes) -> "Iterator[bytes]":
    for start in range(0, len(comment), _JPEG_SEGMENT_BYTES):
        part = comment[start : start + _JPEG_SEGMENT_BYTES]
        yield b"\xff\xfe" + (len(part) + 2).to_bytes(2, "big") + part
