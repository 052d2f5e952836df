"""Images to start from."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from sglang_core import RequestError
from sglang_core import input_images as images


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


def test_an_image_is_turned_upright_and_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(png(Image.new("RGBA", (4, 2), (255, 0, 0, 255)), exif=exif))

    (image,) = images.load_images([str(tmp_path / "a.png")])

    assert (image.size, image.mode, image.getpixel((0, 0))) == ((2, 4), "RGB", (255, 0, 0))


def test_a_data_url_is_an_image() -> None:
    url = "data:image/png;base64," + base64.b64encode(png(Image.new("L", (3, 3), 9))).decode()

    (image,) = images.load_images([url])

    assert (image.size, image.mode) == ((3, 3), "RGB")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"text", "is not an image"),
        (png(Image.new("RGB", (64, 64)))[:60], "can not be read as an image"),
    ],
    ids=["text", "truncated"],
)
def test_what_is_no_image_is_one_sentence(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(RequestError, match=problem):
        images.load_images([str(tmp_path / "a.png")])


def test_an_image_that_unpacks_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (11, 10))))

    with pytest.raises(RequestError, match="11 x 10 pixels, at most 100"):
        images.load_images([str(tmp_path / "a.png")])


def masked(image: Image.Image, tmp_path: Path) -> list[int]:
    """Return the mask that a file of two pixels stands for, pixel by pixel."""
    (tmp_path / "m.png").write_bytes(png(image))
    mask = images.load_mask(str(tmp_path / "m.png"), (2, 1))
    assert (mask.mode, mask.size) == ("L", (2, 1))
    return [mask.getpixel((x, 0)) for x in (0, 1)]


def two(mode: str, left: object, right: object) -> Image.Image:
    image = Image.new(mode, (2, 1), left)
    image.putpixel((1, 0), right)
    return image


def test_mask_marks_what_is_transparent_or_else_what_is_white(tmp_path: Path) -> None:
    transparent = two("RGBA", (255, 255, 255, 255), (0, 0, 0, 0))
    half = two("RGBA", (0, 0, 0, 255), (0, 0, 0, 55))
    opaque = two("RGBA", (0, 0, 0, 255), (255, 255, 255, 255))
    palette = two("P", 0, 1)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.info["transparency"] = 0

    assert masked(transparent, tmp_path) == [0, 255]
    assert masked(half, tmp_path) == [0, 200]
    assert masked(opaque, tmp_path) == [0, 255]
    assert masked(two("LA", (9, 255), (9, 0)), tmp_path) == [0, 255]
    assert masked(two("L", 3, 250), tmp_path) == [3, 250]
    assert masked(two("1", 0, 1), tmp_path) == [0, 255]
    assert masked(two("RGB", (0, 0, 0), (255, 255, 255)), tmp_path) == [0, 255]
    assert masked(palette, tmp_path) == [255, 0]


@pytest.mark.parametrize(
    "image",
    [two("L", 0, 100), two("RGBA", (0, 0, 0, 255), (0, 0, 0, 255)), two("RGBA", (0, 0, 0, 255), (0, 0, 0, 200))],
)
def test_mask_that_marks_nothing_is_refused(image: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the mask marks nothing"):
        masked(image, tmp_path)


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(png(Image.new("L", (3, 3), 255)))

    with pytest.raises(RequestError, match="the mask has 3 x 3 pixels, its image 4 x 3"):
        images.load_mask(str(tmp_path / "m.png"), (4, 3))
