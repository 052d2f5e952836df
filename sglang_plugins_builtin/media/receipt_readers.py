"""Find the comment of a file by walking over its chunks: no pixel is decoded, and no size in the file is believed.

Each function returns the comment as bytes, or ``None`` if there is none or it is larger than we ever write.
Layouts: PNG (ISO/IEC 15948), JPEG (ITU-T T.81, annex B), GIF89a, WebP (RFC 9649), MP4 (ISO/IEC 14496-12).
"""

import zlib
from pathlib import Path
from typing import BinaryIO

from .receipts import MAX_COMMENT_BYTES

_SLACK = 4096  # what a chunk has besides the comment: keyword, language, Exif structure


class NotThisFormatError(Exception):
    """The bytes are not, or not to the end, those of the format."""


def png_comment(path: Path) -> bytes | None:
    """Return the text of the first ``iTXt`` chunk with the keyword ``Comment``."""
    with path.open("rb") as file:
        _expect(file, b"\x89PNG\r\n\x1a\n")
        while True:
            header = _read(file, 8)
            length, kind = int.from_bytes(header[:4], "big"), header[4:]
            if kind == b"IEND":
                return None
            if kind == b"iTXt" and length <= MAX_COMMENT_BYTES + _SLACK:
                keyword, _, rest = _read(file, length).partition(b"\0")
                if keyword == b"Comment":
                    return _itxt_text(rest)
                _skip(file, 4)
            else:
                _skip(file, length + 4)  # the checksum too


def _itxt_text(rest: bytes) -> bytes | None:
    is_compressed = rest[:1] == b"\1"
    text = rest[2:].split(b"\0", 2)[-1]  # after language and translated keyword
    if not is_compressed:
        return text
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(text, MAX_COMMENT_BYTES)
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else text


def jpeg_comment(path: Path) -> bytes | None:
    """Return the ``COM`` segments before the picture as one: a segment ends after 64 KB, a receipt may not."""
    comment = b""
    with path.open("rb") as file:
        _expect(file, b"\xff\xd8")
        while True:
            marker = _read(file, 2)
            while marker == b"\xff\xff":  # fill bytes
                marker = b"\xff" + _read(file, 1)
            if marker[:1] != b"\xff":
                raise NotThisFormatError("a segment does not begin with a marker")
            if marker in (b"\xff\xda", b"\xff\xd9"):
                return comment or None
            length = int.from_bytes(_read(file, 2), "big") - 2
            if length < 0:
                raise NotThisFormatError("a segment has no length")
            if marker == b"\xff\xfe":
                comment += _read(file, length)
                if len(comment) > MAX_COMMENT_BYTES:
                    return None
            else:
                _skip(file, length)


def gif_comment(path: Path) -> bytes | None:
    """Return the first comment extension before the first frame."""
    with path.open("rb") as file:
        _expect(file, b"GIF89a", b"GIF87a")
        flags = _read(file, 7)[4]
        if flags & 0x80:
            _skip(file, 3 << ((flags & 7) + 1))
        while True:
            block = _read(file, 1)
            if block in (b",", b";"):
                return None
            if block != b"!":
                raise NotThisFormatError("a block has an unknown type")
            is_comment = _read(file, 1) == b"\xfe"
            content = bytearray()
            while size := _read(file, 1)[0]:
                part = _read(file, size)
                if is_comment and len(content) <= MAX_COMMENT_BYTES:
                    content += part
            if is_comment:
                return bytes(content) if len(content) <= MAX_COMMENT_BYTES else None


def webp_comment(path: Path) -> bytes | None:
    """Return the ``UserComment`` of the ``EXIF`` chunk."""
    with path.open("rb") as file:
        header = _read(file, 12)
        if header[:4] != b"RIFF" or header[8:] != b"WEBP":
            raise NotThisFormatError("it begins with other bytes")
        end = 8 + int.from_bytes(header[4:8], "little")
        while file.tell() + 8 <= end:
            chunk = _read(file, 8)
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"EXIF" and length <= MAX_COMMENT_BYTES + _SLACK:
                return _exif_comment(_read(file, length))
            _skip(file, length + length % 2)
        return None


def _exif_comment(exif: bytes) -> bytes | None:
    from PIL import Image  # 30 ms, and only for WebP

    tags = Image.Exif()
    try:
        tags.load(exif)
        comment = tags.get_ifd(0x8769).get(0x9286)
    except Exception:  # any program may have written it, and a broken one makes Pillow raise anything
        return None
    return comment[8:] if isinstance(comment, bytes) and comment.startswith(b"ASCII\0\0\0") else None


def mp4_comment(path: Path) -> bytes | None:
    """Return the ``©cmt`` item of the movie's metadata."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        if _read(file, 8)[4:] != b"ftyp":
            raise NotThisFormatError("it begins with other bytes")
        file.seek(0)
        moov = _enter(file, b"moov", end)
        if moov is None:
            raise NotThisFormatError("it has no movie header")
        end = moov
        for name in (b"udta", b"meta", b"ilst", b"\xa9cmt", b"data"):
            inner = _enter(file, name, end)
            if inner is None:
                return None
            end = inner
            if name == b"meta":
                _skip(file, 4)  # version and flags
        _skip(file, 8)  # type and locale
        length = end - file.tell()
        return _read(file, length) if 0 <= length <= MAX_COMMENT_BYTES else None


def _enter(file: BinaryIO, name: bytes, end: int) -> int | None:
    """Go to the content of the first box called ``name`` before ``end``; return where that box ends."""
    while file.tell() + 8 <= end:
        start = file.tell()
        header = _read(file, 8)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(_read(file, 8), "big")
        elif size == 0:
            size = end - start
        if size < file.tell() - start or start + size > end:
            raise NotThisFormatError("a box is larger than what it lies in, or the file is cut off")
        if header[4:] == name:
            return start + size
        file.seek(start + size)
    return None


def _expect(file: BinaryIO, *signatures: bytes) -> None:
    if _read(file, len(signatures[0])) not in signatures:
        raise NotThisFormatError("it begins with other bytes")


def _read(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) < length:
        raise NotThisFormatError("it is cut off")
    return content


def _skip(file: BinaryIO, length: int) -> None:
    file.seek(length, 1)
