"""What every format keeps: the pixels as well as it can, the receipt exactly, and the same bytes twice."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image

from sglang_core import EncodingOptions, GeneratedMedia, MediaKind, OutputError, Receipt
from sglang_core.outputs import open_atomic
from sglang_plugins_builtin.media import sglang_register_checks, sglang_register_media_encoders
from sglang_plugins_builtin.media.encoders import (
    FileEncoder,
    GifEncoder,
    JpegEncoder,
    Mp4Encoder,
    PngEncoder,
    WebpEncoder,
)
from sglang_plugins_builtin.media.libraries import Library
from sglang_plugins_builtin.media.receipts import MAX_COMMENT_BYTES

Frames = NDArray[numpy.uint8]
RECEIPT: Receipt = {"format": 1, "request": {"prompt": "ein rôter Kreis 红色的圆 🔴", "seed": 42}, "versions": {}}
HELD = [
    (encoder, kind)
    for encoder in (PngEncoder(), JpegEncoder(), WebpEncoder(), GifEncoder(), Mp4Encoder())
    for kind in sorted(encoder.kinds)
]
each_held = pytest.mark.parametrize(("encoder", "kind"), HELD, ids=lambda value: getattr(value, "name", value))


def waves(num_frames: int = 1, height: int = 48, width: int = 64, channels: int = 3) -> Frames:
    """Draw smooth colours that move."""
    y, x = numpy.mgrid[0:height, 0:width]
    planes = [
        [numpy.sin((x + 3 * frame) / 17 + channel) * numpy.cos(y / 23 + channel) for channel in range(channels)]
        for frame in range(num_frames)
    ]
    return ((numpy.array(planes) * 0.5 + 0.5) * 255).astype(numpy.uint8).transpose(0, 2, 3, 1)


def made(kind: MediaKind, frames: Frames | None = None, **fields: Any) -> GeneratedMedia:
    if frames is None:
        frames = waves(1 if kind == "image" else 5)
    return GeneratedMedia(kind=kind, frames=frames, fps=None if kind == "image" else 16, **fields)


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    error = float(((a.astype(float) - b.astype(float)) ** 2).mean())
    return 10 * numpy.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("compression", [None, 0, 35, 100])
def test_png_keeps_every_bit(channels: int, compression: int | None, tmp_path: Path) -> None:
    frames = waves(channels=channels)

    PngEncoder().encode(made("image", frames), tmp_path / "a.png", EncodingOptions(compression=compression), RECEIPT)

    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == ("RGB", "RGBA")[channels - 3]
        assert numpy.array_equal(numpy.asarray(picture), frames[0])


def test_more_compression_makes_png_smaller(tmp_path: Path) -> None:
    sizes = []
    for compression in (0, 35, 100):
        options = EncodingOptions(compression=compression)
        PngEncoder().encode(made("image", waves(height=256, width=256)), tmp_path / "a.png", options, {})
        sizes.append((tmp_path / "a.png").stat().st_size)

    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize(("encoder", "fewest_db"), [(JpegEncoder(), (20, 35, 45)), (WebpEncoder(), (25, 35, 90))])
def test_more_quality_is_nearer_to_the_picture(
    encoder: FileEncoder, fewest_db: tuple[int, int, int], tmp_path: Path
) -> None:
    found = []
    for compression in (0, None, 100):
        encoder.encode(made("image"), tmp_path / "a", EncodingOptions(compression=compression), RECEIPT)
        with Image.open(tmp_path / "a") as picture:
            found.append(psnr(numpy.asarray(picture.convert("RGB")), waves()[0]))

    assert found == sorted(found)
    assert all(value >= fewest for value, fewest in zip(found, fewest_db, strict=True)), found


def test_webp_of_full_quality_keeps_every_bit(tmp_path: Path) -> None:
    frames = waves(4, channels=4)

    WebpEncoder().encode(made("video", frames), tmp_path / "a.webp", EncodingOptions(compression=100), RECEIPT)

    with Image.open(tmp_path / "a.webp") as clip:
        assert numpy.array_equal(decoded(clip, "RGBA"), frames)


def test_gif_keeps_up_to_256_colours_exactly(tmp_path: Path) -> None:
    frames = numpy.zeros((3, 32, 32, 3), numpy.uint8)
    frames[:, :16] = (250, 20, 30)
    for index in range(3):
        frames[index, 20:24, 5 * index : 5 * index + 8] = (0, 90, 255)

    GifEncoder().encode(made("video", frames), tmp_path / "a.gif", EncodingOptions(), RECEIPT)

    with Image.open(tmp_path / "a.gif") as clip:
        assert numpy.array_equal(decoded(clip, "RGB"), frames)


def test_fewer_colours_make_gif_smaller(tmp_path: Path) -> None:
    frames = waves(height=128, width=128)
    GifEncoder().encode(made("image", frames), tmp_path / "full.gif", EncodingOptions(), RECEIPT)
    GifEncoder().encode(made("image", frames), tmp_path / "low.gif", EncodingOptions(compression=10), RECEIPT)

    with Image.open(tmp_path / "full.gif") as picture:
        assert psnr(numpy.asarray(picture.convert("RGB")), frames[0]) > 28
    assert (tmp_path / "low.gif").stat().st_size < (tmp_path / "full.gif").stat().st_size


@pytest.mark.parametrize("encoder", [GifEncoder(), WebpEncoder()], ids=lambda encoder: encoder.name)
def test_an_animation_lasts_as_long_as_the_clip(encoder: FileEncoder, tmp_path: Path) -> None:
    clip = GeneratedMedia(kind="video", frames=waves(24), fps=24)

    encoder.encode(clip, tmp_path / "a", EncodingOptions(), RECEIPT)

    with Image.open(tmp_path / "a") as animation:
        assert animation.info["loop"] == 0
        assert sum(durations_ms(animation)) == 1000


def test_gif_says_when_it_cannot_be_so_fast(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = GeneratedMedia(kind="video", frames=waves(10), fps=100)

    GifEncoder().encode(clip, tmp_path / "a.gif", EncodingOptions(), RECEIPT)

    with Image.open(tmp_path / "a.gif") as animation:
        assert sum(durations_ms(animation)) == 200
    assert "at most 50 frames per second" in caplog.text


@pytest.mark.parametrize("encoder", [JpegEncoder(), GifEncoder()], ids=lambda encoder: encoder.name)
def test_transparency_becomes_white(encoder: FileEncoder, tmp_path: Path) -> None:
    frames = numpy.zeros((1, 32, 32, 4), numpy.uint8)
    frames[:, :, 16:] = (200, 0, 0, 255)

    encoder.encode(made("image", frames), tmp_path / "a", EncodingOptions(), RECEIPT)

    with Image.open(tmp_path / "a") as picture:
        pixels = numpy.asarray(picture.convert("RGB")).astype(int)
    assert abs(pixels[16, 4] - (255, 255, 255)).max() <= 3
    assert abs(pixels[16, 28] - (200, 0, 0)).max() <= 3


@each_held
def test_the_receipt_comes_back(encoder: FileEncoder, kind: MediaKind, tmp_path: Path) -> None:
    encoder.encode(made(kind), tmp_path / "a", EncodingOptions(), RECEIPT)

    assert encoder.read_receipt(tmp_path / "a") == RECEIPT


@each_held
@pytest.mark.parametrize(
    "prompt",
    ["x" * 100_000, "红" * 100_000, "", "a\0b\r\n\x1b[0m\udc80\"'<x>", "\ud83d", "½" * 999],
    ids=["long", "long-chinese", "empty", "control", "surrogate", "two-byte"],
)
def test_every_prompt_fits_into_the_receipt(encoder: FileEncoder, kind: MediaKind, prompt: str, tmp_path: Path) -> None:
    receipt = {"request": {"prompt": prompt}}

    encoder.encode(made(kind), tmp_path / "a", EncodingOptions(), receipt)

    assert encoder.read_receipt(tmp_path / "a") == receipt


@each_held
def test_a_receipt_that_is_too_large_is_left_out_with_a_warning(
    encoder: FileEncoder, kind: MediaKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.encode(made(kind), tmp_path / "a", EncodingOptions(), {"request": {"prompt": "x" * MAX_COMMENT_BYTES}})

    assert encoder.read_receipt(tmp_path / "a") is None
    assert "is not stored in the file" in caplog.text


def test_file_managers_find_the_prompt(tmp_path: Path) -> None:
    PngEncoder().encode(made("image"), tmp_path / "a.png", EncodingOptions(), RECEIPT)
    JpegEncoder().encode(made("image"), tmp_path / "a.jpg", EncodingOptions(), RECEIPT)

    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.jpg") as jpeg:
        assert png.info["Description"] == "ein rôter Kreis 红色的圆 🔴"
        assert png.info["Software"] == "sglang-plugins"
        assert jpeg.getexif()[0x0131] == "sglang-plugins"
        assert jpeg.info["comment"].decode().startswith('{"sglang":{"format":1,')
    assert "ein rôter Kreis".encode() in (tmp_path / "a.jpg").read_bytes()


AGAIN = """
import hashlib, sys
import numpy
from pathlib import Path
from sglang_core import EncodingOptions, GeneratedMedia
from sglang_plugins_builtin.media import sglang_register_media_encoders
frames = numpy.load(sys.argv[1])
for encoder in sglang_register_media_encoders():
    for kind in sorted(encoder.kinds):
        sound = dict(audio=numpy.sin(numpy.arange(8000) / 9)[None].astype("f4"), sample_rate_hz=16000)
        media = GeneratedMedia(
            kind=kind, frames=frames[:1] if kind == "image" else frames, fps=16, **(sound if kind == "video" else {})
        )
        path = Path(sys.argv[2])
        encoder.encode(media, path, EncodingOptions(), {"request": {"prompt": "a"}})
        print(encoder.name, kind, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_the_same_frames_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    numpy.save(tmp_path / "frames.npy", waves(6, height=64, width=96))
    command = [sys.executable, "-c", AGAIN, str(tmp_path / "frames.npy")]

    first, second = (
        subprocess.run([*command, str(tmp_path / f"{name}.out")], capture_output=True, text=True, check=True).stdout
        for name in ("first", "second")
    )

    assert first == second
    assert len(first.splitlines()) == len(HELD)


@each_held
def test_the_same_frames_give_the_same_bytes_in_one_process(
    encoder: FileEncoder, kind: MediaKind, tmp_path: Path
) -> None:
    digests = set()
    for name in ("a", "b"):
        encoder.encode(made(kind), tmp_path / name, EncodingOptions(), RECEIPT)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())

    assert len(digests) == 1


@pytest.mark.parametrize("encoder", [PngEncoder(), JpegEncoder()], ids=lambda encoder: encoder.name)
def test_a_picture_format_refuses_a_clip(encoder: FileEncoder, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"a {encoder.name} file cannot hold a clip"):
        encoder.encode(made("video"), tmp_path / "a", EncodingOptions(), RECEIPT)

    assert list(tmp_path.iterdir()) == []


def test_mp4_refuses_a_picture(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a mp4 file cannot hold"):
        Mp4Encoder().encode(made("image"), tmp_path / "a", EncodingOptions(), RECEIPT)


@pytest.mark.parametrize(
    "frames",
    [
        numpy.zeros((1, 8, 8, 3), numpy.float32),
        numpy.zeros((8, 8, 3), numpy.uint8),
        numpy.zeros((1, 8, 8, 1), numpy.uint8),
        numpy.zeros((0, 8, 8, 3), numpy.uint8),
        numpy.zeros((), numpy.uint8),
    ],
    ids=["float", "no-frames-axis", "grey", "empty", "scalar"],
)
def test_frames_that_break_the_contract_are_refused(frames: Frames, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must be uint8") as caught:
        PngEncoder().encode(made("image", frames), tmp_path / "a", EncodingOptions(), RECEIPT)

    assert "author of the backend" in caught.value.remedy


def test_a_size_that_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a webp file cannot hold 16384x1 pixels: 16383 a side are the most"):
        WebpEncoder().encode(made("image", waves(1, 1, 16384)), tmp_path / "a", EncodingOptions(), RECEIPT)


@each_held
def test_a_folder_that_is_gone_ends_in_one_sentence(encoder: FileEncoder, kind: MediaKind, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught, open_atomic(tmp_path / f"a.{encoder.name}"):
        encoder.encode(made(kind), tmp_path / "absent" / f"a.{encoder.name}", EncodingOptions(), RECEIPT)

    assert "--output-path" in caught.value.remedy


@each_held
def test_a_full_disk_ends_in_one_sentence(encoder: FileEncoder, kind: MediaKind, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    def encode_to_a_full_disk() -> None:
        with open_atomic(tmp_path / f"a.{encoder.name}") as path:
            path.symlink_to("/dev/full")
            encoder.encode(made(kind), path, EncodingOptions(), RECEIPT)

    with pytest.raises(OutputError, match="no space is left there"):
        encode_to_a_full_disk()

    assert list(tmp_path.iterdir()) == []


def test_registering_imports_no_library() -> None:
    probe = (
        "import sys\n"
        "from sglang_plugins_builtin import media\n"
        "for encoder in media.sglang_register_media_encoders(): assert encoder.probe().is_available\n"
        "media.sglang_register_checks()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert {"PIL", "av", "numpy"}.isdisjoint(done.stdout.split())


def test_a_missing_library_is_told_with_its_remedy() -> None:
    answer = Library(module="absent_abc", distribution="absent", title="Absent", remedy="pip install absent").probe()

    assert not answer.is_available
    assert answer.reason == "Absent is not installed"
    assert answer.remedy == "pip install absent"


def test_doctor_finds_the_encoders() -> None:
    answers = {check.name: check.run() for check in sglang_register_checks()}

    assert {answer.status for answer in answers.values()} == {"ok"}
    assert "writes PNG, JPEG, WebP and GIF" in answers["pictures"].message
    assert "libx264" in answers["clips"].message


def test_no_extension_is_claimed_twice() -> None:
    extensions = [name for encoder in sglang_register_media_encoders() for name in encoder.extensions]

    assert sorted(extensions) == ["gif", "jpeg", "jpg", "mp4", "png", "webp"]


def decoded(clip: Image.Image, mode: str) -> NDArray[Any]:
    frames = []
    for index in range(getattr(clip, "n_frames", 1)):
        clip.seek(index)
        frames.append(numpy.asarray(clip.convert(mode)))
    return numpy.stack(frames)


def durations_ms(clip: Image.Image) -> list[int]:
    durations = []
    for index in range(getattr(clip, "n_frames", 1)):
        clip.seek(index)
        clip.load()
        durations.append(int(clip.info["duration"]))
    return durations
