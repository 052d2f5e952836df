"""Reading receipts from files that others, or enemies, have made."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sglang_core import ConfigError, EncodingOptions, GeneratedMedia
from sglang_plugins_builtin.media.encoders import (
    FileEncoder,
    GifEncoder,
    JpegEncoder,
    Mp4Encoder,
    PngEncoder,
    WebpEncoder,
)

ENCODERS = [PngEncoder(), JpegEncoder(), WebpEncoder(), GifEncoder(), Mp4Encoder()]
RECEIPT = {"request": {"prompt": "a red circle"}}
each_format = pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.name)


def write(encoder: FileEncoder, path: Path) -> Path:
    kind = "image" if "image" in encoder.kinds else "video"
    frames = numpy.zeros((1, 16, 16, 3), numpy.uint8)
    encoder.encode(GeneratedMedia(kind=kind, frames=frames, fps=16), path, EncodingOptions(), RECEIPT)
    return path


@each_format
@pytest.mark.parametrize("content", [b"", b"\0", b"hello" * 100, bytes(5000)], ids=["empty", "nul", "text", "zeros"])
def test_a_file_of_another_kind_is_refused(encoder: FileEncoder, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=f"is not a whole {encoder.name} file") as caught:
        encoder.read_receipt(path)

    assert "sglang generate" in caught.value.remedy


@each_format
def test_a_missing_file_is_told(encoder: FileEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .* No such file"):
        encoder.read_receipt(tmp_path / "absent")


@each_format
def test_a_cut_or_changed_file_gives_an_answer_or_one_sentence(encoder: FileEncoder, tmp_path: Path) -> None:
    content = write(encoder, tmp_path / "whole").read_bytes()
    path = tmp_path / "broken"
    generator = numpy.random.default_rng(0)
    variants = [content[:length] for length in range(0, len(content), max(1, len(content) // 60))]
    for _ in range(200):
        changed = bytearray(content)
        for position in generator.integers(0, min(len(content), 600), 4):
            changed[position] = generator.integers(0, 256)
        variants.append(bytes(changed))

    for variant in variants:
        path.write_bytes(variant)
        with suppress(ConfigError):
            receipt = encoder.read_receipt(path)
            assert receipt is None or isinstance(receipt, dict)


@each_format
def test_a_file_without_a_comment_has_no_receipt(encoder: FileEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if encoder.name == "mp4":
        content = write(encoder, path).read_bytes()
        path.write_bytes(content.replace(b"\xa9cmt", b"\xa9xyz"))
    else:
        Image.new("RGB", (8, 8)).save(path, encoder.name.upper())

    assert encoder.read_receipt(path) is None


@pytest.mark.parametrize(
    "comment",
    [
        b"made with care",
        b'{"prompt": "of another program"}',
        b'{"sglang": 7}',
        b"[" * 200_000,
        b"\xff\xfe",
        b'{"sglang": {"a": ' + b"9" * 10_000 + b"}}",
    ],
    ids=["text", "json", "number", "deep", "binary", "huge-number"],
)
@pytest.mark.parametrize("encoder", [GifEncoder(), JpegEncoder()], ids=lambda encoder: encoder.name)
def test_the_comment_of_another_program_is_no_receipt(encoder: FileEncoder, comment: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    Image.new("RGB", (8, 8)).save(path, encoder.name.upper(), comment=comment[:60_000])

    assert encoder.read_receipt(path) is None


def test_a_compressed_comment_is_read_as_well(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_itxt("Comment", '{"sglang":{"request":{"prompt":"a red circle"}}}', zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=texts)

    assert PngEncoder().read_receipt(tmp_path / "a.png") == RECEIPT


def test_a_comment_moved_behind_the_pixels_is_found(tmp_path: Path) -> None:
    content = write(PngEncoder(), tmp_path / "a.png").read_bytes()
    start = content.index(b"iTXtComment") - 4
    length = int.from_bytes(content[start : start + 4], "big") + 12
    chunk = content[start : start + length]
    (tmp_path / "b.png").write_bytes(content.replace(chunk, b"").replace(content[-12:], chunk + content[-12:]))

    assert PngEncoder().read_receipt(tmp_path / "b.png") == RECEIPT


def png_bomb(path: Path) -> None:
    body = b"Comment\0\1\0\0\0" + zlib.compress(bytes(150_000_000), 6)
    chunk = len(body).to_bytes(4, "big") + b"iTXt" + body + bytes(4)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND" + bytes(4))


def mp4_bomb(path: Path) -> None:
    size = 3 << 30
    boxes = b"".join(
        (size - 8 * depth).to_bytes(4, "big") + name + (bytes(4) if name == b"meta" else b"")
        for depth, name in enumerate((b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt", b"data"))
    )
    with path.open("wb") as file:
        file.write(b"\0\0\0\x08ftyp" + boxes)
        file.truncate(size + 16)  # sparse: no disk is used


def webp_bomb(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"RIFF" + b"\xf0\xff\xff\xff" + b"WEBPEXIF" + b"\xe0\xff\xff\xff")
        file.truncate(0xFFFFFFF8)


def gif_bomb(path: Path) -> None:
    path.write_bytes(b"GIF89a" + bytes(7) + b"!\xfe" + (b"\xff" + b"x" * 255) * 50_000 + b"\0;")


def jpeg_bomb(path: Path) -> None:
    path.write_bytes(b"\xff\xd8" + (b"\xff\xfe\xff\xff" + b"{" * 65533) * 200 + b"\xff\xd9")


READ = """
import resource, sys
from pathlib import Path
from sglang_core import SglangError
from sglang_plugins_builtin.media import encoders
encoder = getattr(encoders, sys.argv[1])()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    assert encoder.read_receipt(Path(sys.argv[2])) is None
except SglangError as error:
    assert error.remedy
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("encoder", "make"),
    [
        (PngEncoder, png_bomb),
        (Mp4Encoder, mp4_bomb),
        (WebpEncoder, webp_bomb),
        (GifEncoder, gif_bomb),
        (JpegEncoder, jpeg_bomb),
    ],
    ids=["png", "mp4", "webp", "gif", "jpeg"],
)
def test_no_file_makes_the_reader_take_much_memory(
    encoder: type[FileEncoder], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "bomb")

    done = subprocess.run(
        [sys.executable, "-c", READ, encoder.__name__, str(tmp_path / "bomb")], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 24 * 1024  # KiB
