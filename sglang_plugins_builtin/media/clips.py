"""MP4: H.264 video and AAC sound, playable everywhere, and the same bytes for the same frames."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy
from av.video.reformatter import ColorRange, Colorspace

from sglang_core import EncodingOptions, GeneratedMedia, OutputError, Receipt

from .pictures import on_white
from .receipts import describe, pack

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

DEFAULT_FPS = 24.0
DEFAULT_PRESET = "fast"
_BT709 = 1  # colour primaries, transfer and matrix have the same number in H.264
_LIMITED_RANGE = 1
#: Fixed, because how x264 divides the work among threads shows in the bytes.
_NUM_THREADS = 4
_BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no version strings
_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AAC_BITS_PER_CHANNEL = 96_000
_AAC_FRAME = 1024
_LAYOUTS = {1: "mono", 2: "stereo"}


def write_mp4(media: GeneratedMedia, path: Path, options: EncodingOptions, receipt: Receipt) -> None:
    """Write a clip, with its sound if it has one.

    Odd sizes grow by one pixel, because 4:2:0 stores colours for pairs of pixels. Transparency becomes white.

    :raises OutputError: for sound without a sample rate, or with more than two channels.
    """
    sound = _checked_sound(media)
    try:
        # faststart: the index comes first, so that a browser plays while it loads.
        with av.open(
            str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}
        ) as container:
            container.metadata.update(description=describe(receipt), comment=(pack(receipt) or b"").decode())
            video = _add_video(container, media, options)
            audio = _add_audio(container, sound) if sound else None
            _write_interleaved(container, media, video, audio, sound)
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # no space, no permission: the host knows the remedies
            raise
        raise OutputError(
            f"PyAV cannot write {media.num_frames} frames of {media.size[0]}x{media.size[1]} as mp4: {error}",
            "choose another file name extension, for example .webp",
        ) from error


def crf(quality: int) -> int:
    """Return x264's constant rate factor for a quality from 0 to 100.

    0 would be H.264's lossless profile, which browsers and phones do not play; 1 cannot be told from it by eye.
    """
    return max(1, (100 - quality) * 51 // 100)


def _add_video(container: "OutputContainer", media: GeneratedMedia, options: EncodingOptions) -> "VideoStream":
    fps = Fraction(options.fps or media.fps or DEFAULT_FPS).limit_denominator(1001)
    stream = container.add_stream(
        "libx264",
        rate=fps,
        options={"crf": str(crf(options.quality("video"))), "preset": options.x264_preset or DEFAULT_PRESET},
    )
    width, height = media.size
    stream.width, stream.height = width + width % 2, height + height % 2
    if (stream.width, stream.height) != (width, height):
        logger.warning(
            "H.264 video has even sizes only: %dx%d is saved as %dx%d, its last column or row repeated",
            width, height, stream.width, stream.height,
        )  # fmt: skip
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.thread_count = _NUM_THREADS
    codec.flags |= _BITEXACT
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED_RANGE
    codec.time_base = 1 / fps
    return stream


def _video_frames(media: GeneratedMedia) -> Iterator[av.VideoFrame]:
    width, height = media.size
    for index, frame in enumerate(media.frames):
        rgb = numpy.pad(on_white(frame), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(numpy.ascontiguousarray(rgb), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts = index
        yield picture


def _checked_sound(media: GeneratedMedia) -> "tuple[numpy.ndarray[Any, Any], int] | None":
    """Return samples (channels, samples) as float32 in [-1, 1] and their rate in Hz."""
    if media.audio is None or media.audio.size == 0:
        return None
    remedy = "report it to the author of the backend that made it"
    if media.audio.ndim != 2 or media.audio.shape[0] not in _LAYOUTS:
        raise OutputError(f"sound of shape {media.audio.shape} cannot be encoded: it must be (1 or 2, samples)", remedy)
    if not media.sample_rate_hz or media.sample_rate_hz <= 0:
        raise OutputError("the clip has sound, but no sample rate", remedy)
    samples = numpy.clip(numpy.nan_to_num(media.audio.astype(numpy.float32)), -1, 1)
    return samples, media.sample_rate_hz


def _add_audio(container: "OutputContainer", sound: "tuple[numpy.ndarray[Any, Any], int]") -> "AudioStream":
    samples, rate_hz = sound
    encoded_hz = next((known for known in _AAC_RATES_HZ if known >= rate_hz), _AAC_RATES_HZ[-1])
    stream = container.add_stream("aac", rate=encoded_hz, layout=_LAYOUTS[samples.shape[0]])
    stream.bit_rate = _AAC_BITS_PER_CHANNEL * samples.shape[0]
    stream.codec_context.flags |= _BITEXACT
    return stream


def _audio_frames(sound: "tuple[numpy.ndarray[Any, Any], int]", stream: "AudioStream") -> Iterator[av.AudioFrame]:
    """Yield the sound in the rate of the stream, in frames as AAC takes them."""
    samples, rate_hz = sound
    resampler = av.AudioResampler("fltp", _LAYOUTS[samples.shape[0]], stream.rate, frame_size=_AAC_FRAME)
    for start in range(0, samples.shape[1], rate_hz):
        second = numpy.ascontiguousarray(samples[:, start : start + rate_hz])
        frame = av.AudioFrame.from_ndarray(second, format="fltp", layout=_LAYOUTS[samples.shape[0]])
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _write_interleaved(
    container: "OutputContainer",
    media: GeneratedMedia,
    video: "VideoStream",
    audio: "AudioStream | None",
    sound: "tuple[numpy.ndarray[Any, Any], int] | None",
) -> None:
    """Encode picture and sound side by side: a player that streams needs both of a moment together."""
    sounds = _audio_frames(sound, audio) if sound and audio else iter(())
    heard_s = 0.0
    for picture in _video_frames(media):
        container.mux(video.encode(picture))
        shown_s = (picture.pts or 0) * float(video.codec_context.time_base)
        while audio and heard_s <= shown_s and (frame := next(sounds, None)):
            heard_s += frame.samples / audio.rate
            container.mux(audio.encode(frame))
    if audio:
        for frame in sounds:
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    container.mux(video.encode(None))
