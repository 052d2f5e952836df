"""Previews are decoded again as a terminal would, and compared with the picture."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy
import pytest
from PIL import Image

from sglang_core import OutputError
from sglang_plugins_builtin.terminal.preview import KITTY_CHUNK_BYTES, preview_escape

KITTY_CHUNK = re.compile(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\")


def decode_kitty(escape: bytes) -> tuple[bytes, list[bytes]]:
    """Return the file and the control data of each chunk."""
    chunks = KITTY_CHUNK.findall(escape)
    assert b"".join(b"\x1b_G%s;%s\x1b\\" % chunk for chunk in chunks) == escape
    assert all(len(payload) <= KITTY_CHUNK_BYTES for _, payload in chunks)
    return base64.standard_b64decode(b"".join(payload for _, payload in chunks)), [keys for keys, _ in chunks]


def decode_iterm2(escape: bytes) -> tuple[dict[str, str], bytes]:
    assert escape.startswith(b"\x1b]1337;File=")
    assert escape.endswith(b"\x07")
    arguments, _, payload = escape.removeprefix(b"\x1b]1337;File=")[:-1].partition(b":")
    return dict(part.split("=", 1) for part in arguments.decode().split(";")), base64.standard_b64decode(payload)


def decode_sixel(escape: bytes) -> "numpy.ndarray":
    """Return RGBA pixels; those that were not drawn are transparent."""
    body = re.fullmatch(rb"\x1bP0;1;0q(.*)\x1b\\", escape, re.DOTALL)[1]
    width, height = (int(number) for number in re.match(rb'"1;1;(\d+);(\d+)', body).groups())
    pixels = numpy.zeros((-(-height // 6) * 6, width, 4), numpy.uint8)
    palette, colour, x, top = {}, None, 0, 0
    tokens = re.findall(
        rb"#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[?-~]|\$|-", body.partition(b"#")[1] + body.partition(b"#")[2]
    )
    for token in tokens:
        if token.startswith(b"#"):
            colour, *levels = token[1:].split(b";")
            if levels:
                palette[colour] = [round(int(level) * 255 / 100) for level in levels[1:]]
        elif token == b"$":
            x = 0
        elif token == b"-":
            x, top = 0, top + 6
        else:
            length = int(token[1:-1]) if token.startswith(b"!") else 1
            for bit in range(6):
                if (token[-1] - 63) >> bit & 1:
                    pixels[top + bit, x : x + length] = [*palette[colour], 255]
            x += length
    assert not pixels[height:].any()
    return pixels[:height]


def draw_shapes(width: int = 50, height: int = 31) -> "Image.Image":
    pixels = numpy.full((height, width, 3), 255, numpy.uint8)
    pixels[3:20, 5:30] = (220, 20, 60)
    pixels[10:29, 22:48] = (30, 60, 200)
    return Image.fromarray(pixels)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "shapes.png"
    draw_shapes().save(path)
    return path


def noise(path: Path) -> Path:
    pixels = numpy.random.default_rng(0).integers(0, 256, (80, 90, 3), numpy.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_kitty_gets_the_picture_in_chunks(tmp_path: Path) -> None:
    path = noise(tmp_path / "noise.png")

    file, keys = decode_kitty(preview_escape(path, "kitty"))

    assert numpy.array_equal(numpy.asarray(Image.open(BytesIO(file))), numpy.asarray(Image.open(path)))
    assert len(keys) > 1
    assert keys[0] == b"a=T,f=100,q=2,m=1"
    assert set(keys[1:-1]) <= {b"m=1"}
    assert keys[-1] == b"m=0"


def test_small_picture_is_one_kitty_chunk(picture: Path) -> None:
    assert decode_kitty(preview_escape(picture, "kitty"))[1] == [b"a=T,f=100,q=2,m=0"]


def test_iterm2_gets_the_picture(picture: Path) -> None:
    arguments, file = decode_iterm2(preview_escape(picture, "iterm2"))

    assert numpy.array_equal(numpy.asarray(Image.open(BytesIO(file))), numpy.asarray(draw_shapes()))
    assert arguments["inline"] == "1"
    assert arguments["size"] == str(len(file))
    assert base64.b64decode(arguments["name"]) == b"shapes.png"


def test_sixel_of_few_colours_is_the_picture(picture: Path) -> None:
    pixels = decode_sixel(preview_escape(picture, "sixel"))

    difference = pixels[..., :3].astype(int) - numpy.asarray(draw_shapes()).astype(int)
    assert abs(difference).max() <= 2  # a sixel colour has 101 levels a channel
    assert (pixels[..., 3] == 255).all()


def test_sixel_of_many_colours_is_near_the_picture(tmp_path: Path) -> None:
    red, green = numpy.meshgrid(numpy.arange(128), numpy.arange(128))
    original = numpy.stack([red * 2, green * 2, red + green], axis=-1).astype(numpy.uint8)
    path = tmp_path / "gradient.png"
    Image.fromarray(original).save(path)

    escape = preview_escape(path, "sixel")

    assert abs(decode_sixel(escape)[..., :3].astype(int) - original.astype(int)).mean() < 8
    assert len(set(re.findall(rb"#(\d+);2;", escape))) <= 256


def test_sixel_leaves_transparent_pixels_out(tmp_path: Path) -> None:
    image = draw_shapes().convert("RGBA")
    image.putpixel((0, 0), (255, 255, 255, 0))
    image.save(tmp_path / "hole.png")

    pixels = decode_sixel(preview_escape(tmp_path / "hole.png", "sixel"))

    assert pixels[0, 0, 3] == 0
    assert pixels[0, 1, 3] == 255


@pytest.mark.parametrize("protocol", ["kitty", "iterm2", "sixel"])
def test_large_picture_is_made_smaller(picture: Path, protocol: str) -> None:
    escape = preview_escape(picture, protocol, max_size=(25, 100))

    if protocol == "sixel":
        assert decode_sixel(escape).shape[:2] == (16, 25)
    else:
        file = decode_kitty(escape)[0] if protocol == "kitty" else decode_iterm2(escape)[1]
        assert Image.open(BytesIO(file)).size == (25, 16)


def test_animated_gif_moves_in_iterm2_and_stands_still_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "clip.gif"
    draw_shapes().save(path, save_all=True, append_images=[Image.new("RGB", (50, 31), "black")])

    assert decode_iterm2(preview_escape(path, "iterm2"))[1] == path.read_bytes()
    file, _ = decode_kitty(preview_escape(path, "kitty"))
    assert numpy.array_equal(numpy.asarray(Image.open(BytesIO(file)).convert("RGB"))[5, 10], (220, 20, 60))


def test_clip_shows_its_first_frame(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="reads video")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in ("red", "blue"):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), colour))))
        container.mux(stream.encode())

    file, _ = decode_kitty(preview_escape(path, "kitty"))

    red, green, blue = Image.open(BytesIO(file)).getpixel((30, 20))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("content", [None, b"", b"no picture at all"], ids=["missing", "empty", "text"])
def test_file_without_a_picture_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(OutputError, match=r"no preview of .*broken\.png: .+\nTry: open the file in a viewer"):
        preview_escape(path, "sixel")
