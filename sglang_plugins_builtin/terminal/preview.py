"""A picture as the bytes that make a terminal draw it."""

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import OutputError

from .protocols import GraphicsProtocol
from .sixel import encode_sixel

if TYPE_CHECKING:
    from PIL import Image

#: kitty's limit for the payload of one escape sequence (https://sw.kovidgoyal.net/kitty/graphics-protocol).
KITTY_CHUNK_BYTES = 4096


def preview_escape(path: Path, protocol: GraphicsProtocol, max_size: tuple[int, int] | None = None) -> bytes:
    """Return the escape sequence that draws a file of a result; of a clip, its first frame.

    An animated GIF moves in terminals that speak the iTerm2 protocol.

    :param max_size: (width, height) in pixels; larger pictures are made smaller.
    :raises OutputError: if the file holds no picture that can be read.
    """
    if protocol == "iterm2" and path.suffix.lower() == ".gif":
        return _iterm2(path.read_bytes(), path.name)
    image = _first_frame(path)
    if max_size is not None:
        image.thumbnail(max_size)
    if protocol == "sixel":
        return encode_sixel(image)
    png = BytesIO()
    image.save(png, "PNG")
    return _kitty(png.getvalue()) if protocol == "kitty" else _iterm2(png.getvalue(), path.name)


def _first_frame(path: Path) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except UnidentifiedImageError:
        return _first_video_frame(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _first_video_frame(path: Path) -> "Image.Image":
    try:
        import av
    except ImportError as error:
        raise _unreadable(path, error) from error
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]  # PyAV has no types here
            return image
    except (av.FFmpegError, IndexError, StopIteration, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> OutputError:
    reason = str(error) or type(error).__name__
    return OutputError(f"no preview of {path}: {reason}", "open the file in a viewer, or leave --show out")


def _kitty(png: bytes) -> bytes:
    """Transmit and draw (``a=T``) a PNG (``f=100``) in chunks, without an answer (``q=2``)."""
    payload = base64.standard_b64encode(png)
    chunks = [payload[start : start + KITTY_CHUNK_BYTES] for start in range(0, len(payload), KITTY_CHUNK_BYTES)]
    parts = []
    for number, chunk in enumerate(chunks, start=1):
        keys = b"a=T,f=100,q=2," if number == 1 else b""
        parts.append(b"\x1b_G%sm=%d;%s\x1b\\" % (keys, number < len(chunks), chunk))
    return b"".join(parts)


def _iterm2(file: bytes, name: str) -> bytes:
    """Draw a whole file in place (https://iterm2.com/documentation-images.html)."""
    keys = b"name=%s;size=%d;inline=1;preserveAspectRatio=1" % (base64.standard_b64encode(name.encode()), len(file))
    return b"\x1b]1337;File=%s:%s\x07" % (keys, base64.standard_b64encode(file))
