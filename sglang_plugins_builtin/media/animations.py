"""WebP and GIF, which hold one picture or a clip."""

import logging
from io import BytesIO
from pathlib import Path

from PIL import Image

from sglang_core import EncodingOptions, GeneratedMedia, Receipt

from .pictures import exif_fields, on_white
from .receipts import pack

logger = logging.getLogger(__name__)

DEFAULT_FPS = 24.0
_LOSSLESS_QUALITY = 100
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
#: Browsers play a shorter frame ten times as long.
_SHORTEST_GIF_FRAME_CS = 2
#: A palette is made from so many frames, spread over the clip.
_PALETTE_FRAMES = 8


def write_webp(media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
    """Write a picture or a clip with the quality ``compression``; 100 is without loss."""
    fields = exif_fields(receipt)
    # The field declares its character set, and ASCII is the one that all readers agree on.
    if comment := pack(receipt, ensure_ascii=True):
        fields[_EXIF_IFD] = {_USER_COMMENT: b"ASCII\0\0\0" + comment}
    quality = options.quality(media.kind)
    is_lossless = quality == _LOSSLESS_QUALITY
    frames = [Image.fromarray(frame) for frame in media.frames]
    encoded = BytesIO()
    if media.kind == "image":
        frames[0].save(encoded, "WEBP", quality=quality, lossless=is_lossless, exact=is_lossless, exif=fields)
    else:
        durations = _durations(len(frames), _fps(media, options), 1000)
        frames[0].save(
            encoded, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0,
            quality=quality, lossless=is_lossless, exact=is_lossless, exif=fields,
        )  # fmt: skip
    path.write_bytes(encoded.getbuffer())


def write_gif(media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
    """Write a picture or a clip in 256 colours; ``compression`` under 100 takes fewer. Transparency becomes white."""
    num_colours = 256 if options.compression is None else 2 + round(254 * options.compression / 100)
    frames = [Image.fromarray(on_white(frame)) for frame in media.frames]
    palette = _palette(frames, num_colours)
    # One palette for all frames: with one each, still areas would flicker.
    frames = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    comment = pack(receipt) or b""
    encoded = BytesIO()
    if media.kind == "image":
        frames[0].save(encoded, "GIF", comment=comment)
    else:
        fps = _fps(media, options)
        durations = [10 * duration for duration in _gif_durations(len(frames), fps)]
        frames[0].save(
            encoded, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, comment=comment
        )
    path.write_bytes(encoded.getbuffer())


def _palette(frames: list[Image.Image], num_colours: int) -> Image.Image:
    step = max(1, len(frames) // _PALETTE_FRAMES)
    chosen = frames[::step][:_PALETTE_FRAMES]
    width, height = chosen[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for index, frame in enumerate(chosen):
        sheet.paste(frame, (0, index * height))
    return sheet.quantize(num_colours, method=Image.Quantize.MEDIANCUT)


def _fps(media: GeneratedMedia, options: EncodingOptions) -> float:
    return options.fps or media.fps or DEFAULT_FPS


def _gif_durations(num_frames: int, fps: float) -> list[int]:
    """Return the time of each frame in 1/100 s."""
    fastest = 100 / _SHORTEST_GIF_FRAME_CS
    if fps > fastest:
        logger.warning("GIF plays at most %g frames per second: this clip of %g is slower in it", fastest, fps)
    return [max(_SHORTEST_GIF_FRAME_CS, duration) for duration in _durations(num_frames, min(fps, fastest), 100)]


def _durations(num_frames: int, fps: float, units_per_s: int) -> list[int]:
    """Return the whole units each frame lasts, rounded so that the clip as a whole keeps its length."""
    ends = [round((index + 1) * units_per_s / fps) for index in range(num_frames)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
