"""What the first bytes of an image file say: its format and size, without decoding a pixel."""

from attrs import frozen

from sglang_core import RequestError

#: Markers of a JPEG's frame header, which holds the size: SOF0 to SOF15 without DHT, JPG and DAC.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@frozen(kw_only=True)
class ImageHeader:
    """Format (``png``, ``jpeg``, ``webp``, ``gif``), which is its file extension too, and size in pixels."""

    format: str
    width: int
    height: int


def read_header(content: bytes, shown: str) -> ImageHeader:
    """Return the header of a PNG, JPEG, WebP or GIF file.

    :param shown: how messages call the image.
    :raises RequestError: if it is none of these, or its header is damaged.
    """
    found = _png(content) or _jpeg(content) or _webp(content) or _gif(content)
    if found is None:
        raise RequestError(f"{shown} is not an image, or its header is damaged", "give a PNG, JPEG, WebP or GIF file")
    name, width, height = found
    if not width or not height:
        raise RequestError(f"{shown} is an image of {width} x {height} pixels", "give another copy of it")
    return ImageHeader(format=name, width=width, height=height)


def _png(content: bytes) -> tuple[str, int, int] | None:
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[12:16] != b"IHDR" or len(content) < 33:
        return None
    return "png", int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def _gif(content: bytes) -> tuple[str, int, int] | None:
    if content[:6] not in (b"GIF87a", b"GIF89a") or len(content) < 13:
        return None
    return "gif", int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")


def _webp(content: bytes) -> tuple[str, int, int] | None:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind = content[12:16]
    if kind == b"VP8X":
        return "webp", 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L" and content[20] == 0x2F:
        bits = int.from_bytes(content[21:25], "little")
        return "webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = int.from_bytes(content[26:28], "little"), int.from_bytes(content[28:30], "little")
        return "webp", width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(content: bytes) -> tuple[str, int, int] | None:
    """Walk over the segments to the frame header; each starts with FF, a marker, and its length."""
    if content[:3] != b"\xff\xd8\xff":
        return None
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # padding before a marker
            place += 1
            continue
        if marker in _START_OF_FRAME:
            height, width = content[place + 5 : place + 7], content[place + 7 : place + 9]
            return "jpeg", int.from_bytes(width, "big"), int.from_bytes(height, "big")
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        if length < 2 or marker in {0xD9, 0xDA}:
            return None
        place += 2 + length
    return None
