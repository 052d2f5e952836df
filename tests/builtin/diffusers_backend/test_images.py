"""Images to start from."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from sglang_core import RequestError
from sglang_plugins_builtin.diffusers_backend import images


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
