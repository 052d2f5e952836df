import io

import pytest
from PIL import Image

from sglang_core import RequestError
from sglang_plugins_builtin.openai_api.image_headers import read_header


def encoded(kind, size=(37, 21), mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


FILES = {
    "PNG": (encoded("PNG"), "png"),
    "palette PNG": (encoded("PNG", mode="P"), "png"),
    "JPEG": (encoded("JPEG"), "jpeg"),
    "progressive JPEG": (encoded("JPEG", progressive=True), "jpeg"),
    "JPEG with a comment and EXIF": (encoded("JPEG", comment=b"x" * 500, exif=Image.Exif()), "jpeg"),
    "lossy WebP": (encoded("WEBP"), "webp"),
    "lossless WebP": (encoded("WEBP", lossless=True), "webp"),
    "WebP with EXIF": (encoded("WEBP", mode="RGBA", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"), "webp"),
    "GIF": (encoded("GIF"), "gif"),
}


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES)
def test_header_tells_format_and_size(content, kind):
    header = read_header(content, "image 1")

    assert (header.format, header.width, header.height) == (kind, 37, 21)


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES)
def test_file_that_is_cut_in_its_header_is_refused(content, kind):
    for length in range(12):
        with pytest.raises(RequestError, match="image 1 is not an image"):
            read_header(content[:length], "image 1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"BM" + bytes(100),
        b"\xff\xd8\xff\xe0" + b"\xff" * 100,
        b"\xff\xd8\xff\xe0\x00\x00" * 20,
        b"\xff\xd8\xff\xda\x00\x08" + bytes(40),
        b"RIFF" + bytes(4) + b"WEBPVP8 " + bytes(40),
        b"RIFF" + bytes(4) + b"AVI LIST" + bytes(40),
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
)
def test_what_is_no_image_is_refused_with_a_remedy(content):
    with pytest.raises(RequestError) as caught:
        read_header(content, "image 2")

    assert caught.value.problem == "image 2 is not an image, or its header is damaged"
    assert caught.value.remedy == "give a PNG, JPEG, WebP or GIF file"


def test_empty_image_is_refused():
    content = bytearray(encoded("PNG"))
    content[16:20] = bytes(4)

    with pytest.raises(RequestError, match="image of 0 x 21 pixels"):
        read_header(bytes(content), "image 1")


def test_header_of_a_jpeg_of_many_segments_is_found_quickly():
    segments = b"\xff\xe1\x00\x02" * 100_000
    content = encoded("JPEG")

    assert read_header(content[:2] + segments + content[2:], "image 1").width == 37
