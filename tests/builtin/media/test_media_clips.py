"""MP4: exact size and length, colours that stay, sound in time, and a file that browsers play."""

from pathlib import Path
from typing import Any

import av
import numpy
import pytest
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from sglang_core import EncodingOptions, GeneratedMedia, OutputError
from sglang_plugins_builtin.media.clips import crf
from sglang_plugins_builtin.media.encoders import Mp4Encoder


def clip(num_frames: int = 9, height: int = 48, width: int = 64, **fields: Any) -> GeneratedMedia:
    y, x = numpy.mgrid[0:height, 0:width]
    planes = [
        [numpy.sin((x + 3 * frame) / 17 + c) * numpy.cos(y / 23 + c) for c in range(3)] for frame in range(num_frames)
    ]
    frames = ((numpy.array(planes) * 0.5 + 0.5) * 255).astype(numpy.uint8).transpose(0, 2, 3, 1)
    return GeneratedMedia(**{"kind": "video", "frames": frames, "fps": 16, **fields})


def encode(media: GeneratedMedia, tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "clip.mp4"
    Mp4Encoder().encode(media, path, EncodingOptions(**options), {"request": {"prompt": "waves"}})
    return path


def decode(path: Path) -> NDArray[Any]:
    with av.open(str(path)) as container:
        # As a player does, by the standard the stream names. Early PyAV does it only if the other side has another one.
        frames = [
            frame.reformat(format="rgb24", src_colorspace=frame.colorspace, dst_colorspace=Colorspace.ITU601)
            for frame in container.decode(video=0)
        ]
        return numpy.stack([frame.to_ndarray() for frame in frames])


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    return 10 * float(numpy.log10(255**2 / max(((a.astype(float) - b.astype(float)) ** 2).mean(), 1e-9)))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (50, 62), (2, 2), (90, 34)])
def test_even_sizes_are_delivered_exactly(height: int, width: int, tmp_path: Path) -> None:
    media = clip(3, height, width)

    assert decode(encode(media, tmp_path)).shape == media.frames.shape


def test_an_odd_size_grows_by_one_pixel_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    media = clip(3, 49, 63)

    frames = decode(encode(media, tmp_path))

    assert frames.shape == (3, 50, 64, 3)
    assert psnr(frames[:, :49, :63], media.frames) > 30
    assert psnr(frames[:, :49, 63], media.frames[:, :, -1]) > 25
    assert "63x49 is saved as 64x50" in caplog.text


@pytest.mark.parametrize(("quality", "factor"), [(0, 51), (10, 45), (35, 33), (50, 25), (75, 12), (90, 5), (100, 1)])
def test_quality_is_a_rate_factor(quality: int, factor: int) -> None:
    assert crf(quality) == factor


def test_more_quality_is_nearer_to_the_frames(tmp_path: Path) -> None:
    media = clip()

    found = [psnr(decode(encode(media, tmp_path, compression=quality)), media.frames) for quality in (0, 35, None, 100)]

    assert found == sorted(found)
    assert found[2] > 34
    assert found[3] > 38


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 160, 0), (20, 40, 250), (255, 255, 255), (0, 0, 0), (90, 90, 90)])
def test_colours_stay_what_they_are(colour: tuple[int, int, int], tmp_path: Path) -> None:
    media = clip(frames=numpy.full((2, 64, 64, 3), colour, numpy.uint8))

    shown = decode(encode(media, tmp_path, compression=90)).mean(axis=(0, 1, 2))

    assert abs(shown - colour).max() <= 3


def test_a_player_is_told_the_colours_and_finds_the_index_first(tmp_path: Path) -> None:
    path = encode(clip(), tmp_path, compression=100)

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(video=0))
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.profile == "High"
        assert (frame.colorspace, frame.color_range) == (1, 1)
        assert container.metadata["description"] == "waves"
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("fps", [8, 16, 23.976, 24, 29.97, 60])
def test_a_clip_lasts_as_long_as_its_frames(fps: float, tmp_path: Path) -> None:
    path = encode(clip(num_frames=12, fps=fps), tmp_path)

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == pytest.approx(fps, rel=1e-4)
        assert stream.frames == 12
        assert (container.duration or 0) / 1e6 == pytest.approx(12 / fps, abs=0.002)


def test_one_frame_is_a_clip_too(tmp_path: Path) -> None:
    assert decode(encode(clip(num_frames=1), tmp_path)).shape == (1, 48, 64, 3)


def test_the_asked_frame_rate_wins(tmp_path: Path) -> None:
    with av.open(str(encode(clip(fps=16), tmp_path, fps=30))) as container:
        assert container.streams.video[0].average_rate == 30


def test_a_slower_preset_is_passed_on(tmp_path: Path) -> None:
    content = encode(clip(), tmp_path, x264_preset="ultrafast").read_bytes()

    assert b"cabac=0" in content  # x264 writes its settings into the stream


def test_transparency_becomes_white(tmp_path: Path) -> None:
    frames = numpy.zeros((2, 32, 32, 4), numpy.uint8)

    assert decode(encode(clip(frames=frames), tmp_path)).min() >= 252


@pytest.mark.parametrize("rate_hz", [8000, 22000, 24000, 44100, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_back_in_time_and_pitch(rate_hz: int, channels: int, tmp_path: Path) -> None:
    seconds, tone_hz = 1.5, 440
    wave = 0.5 * numpy.sin(2 * numpy.pi * tone_hz * numpy.arange(int(seconds * rate_hz)) / rate_hz)
    sound = numpy.stack([wave] * channels).astype(numpy.float32)

    path = encode(clip(num_frames=24, audio=sound, sample_rate_hz=rate_hz), tmp_path)

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.channels == channels
        heard = numpy.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert len(heard) / stream.rate == pytest.approx(seconds, abs=0.15)
        middle = heard[len(heard) // 4 : len(heard) // 4 * 3]
        spectrum = abs(numpy.fft.rfft(middle * numpy.hanning(len(middle))))
        assert spectrum.argmax() * stream.rate / len(middle) == pytest.approx(tone_hz, abs=3)
        assert abs(middle).max() == pytest.approx(0.5, abs=0.05)
        assert float(stream.start_time or 0) == pytest.approx(0, abs=0.05 * stream.rate)


def test_picture_and_sound_lie_side_by_side(tmp_path: Path) -> None:
    sound = numpy.zeros((2, 16000 * 4), numpy.float32)

    path = encode(clip(num_frames=64, audio=sound, sample_rate_hz=16000), tmp_path)

    with av.open(str(path)) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.size]
    assert "audio" in kinds[: len(kinds) // 4]
    assert "video" in kinds[len(kinds) // 4 * 3 :]


def test_wild_samples_do_not_stop_the_clip(tmp_path: Path) -> None:
    sound = numpy.array([[numpy.nan, numpy.inf, -numpy.inf, 7.0] * 4000], numpy.float32)

    assert len(decode(encode(clip(audio=sound, sample_rate_hz=16000), tmp_path))) == 9


@pytest.mark.parametrize(
    ("sound", "rate_hz", "problem"),
    [
        (numpy.zeros((1, 100), numpy.float32), None, "no sample rate"),
        (numpy.zeros((3, 100), numpy.float32), 16000, "must be (1 or 2, samples)"),
        (numpy.zeros(100, numpy.float32), 16000, "must be (1 or 2, samples)"),
    ],
)
def test_sound_that_cannot_be_encoded_is_refused(
    sound: NDArray[Any], rate_hz: int | None, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError) as caught:
        encode(clip(audio=sound, sample_rate_hz=rate_hz), tmp_path)

    assert problem in caught.value.problem
