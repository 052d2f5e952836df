"""Sixel graphics: six rows of pixels at a time, one colour after another (https://vt100.net/docs/vt3xx-gp/chapter14.html)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from PIL import Image

MAX_COLOURS = 256
_BAND_HEIGHT = 6
_FIRST_CODE = 63  # '?': no pixel of the six


def encode_sixel(image: "Image.Image") -> bytes:
    """Return a picture as a sixel sequence of at most 256 colours; transparent pixels stay as the terminal has them."""
    import numpy

    rgba = image.convert("RGBA")
    colours = rgba.convert("RGB").quantize(MAX_COLOURS)
    palette = (colours.getpalette() or [])[: 3 * MAX_COLOURS]
    indices = numpy.asarray(colours).astype(numpy.int16)  # (height, width)
    indices[numpy.asarray(rgba)[..., 3] < 128] = -1
    used = [int(index) for index in numpy.unique(indices) if index >= 0]
    parts = [f'\x1bP0;1;0q"1;1;{image.width};{image.height}'.encode()]  # 1;1: square pixels
    for index in used:
        red, green, blue = (round(level * 100 / 255) for level in palette[3 * index : 3 * index + 3])
        parts.append(f"#{index};2;{red};{green};{blue}".encode())
    parts += [_encode_band(indices[top : top + _BAND_HEIGHT]) for top in range(0, image.height, _BAND_HEIGHT)]
    return b"".join(parts) + b"\x1b\\"


def _encode_band(band: "numpy.ndarray[Any, Any]") -> bytes:
    """Encode up to six rows: each colour in turn from the left edge (``$``), then the next band (``-``)."""
    import numpy

    weights = (1 << numpy.arange(band.shape[0], dtype=numpy.uint8))[:, None]  # the top row is the lowest bit
    passes = []
    for index in numpy.unique(band):
        if index >= 0:
            codes = ((band == index) * weights).sum(axis=0).astype(numpy.uint8) + _FIRST_CODE  # (width,)
            passes.append(f"#{index}".encode() + _run_lengths(codes))
    return b"$".join(passes) + b"-"


def _run_lengths(codes: "numpy.ndarray[Any, Any]") -> bytes:
    """Shorten repeats: ``!<count><code>`` where that is shorter; blanks at the end are left out."""
    import numpy

    starts = numpy.flatnonzero(numpy.diff(codes, prepend=-1))
    lengths = numpy.diff(starts, append=len(codes))
    if codes[starts[-1]] == _FIRST_CODE:
        starts, lengths = starts[:-1], lengths[:-1]
    runs = zip(codes[starts].tolist(), lengths.tolist(), strict=True)
    return b"".join(b"!%d%c" % (length, code) if length > 3 else bytes([code]) * length for code, length in runs)
