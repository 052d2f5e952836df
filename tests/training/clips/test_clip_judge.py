from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from clips_training.clips import MOTIONS, SCALINGS, SHAPES, Clip, Motion, Size, draw_clip, path_of
from clips_training.judge import judge
from shapes_training.drawing import PALETTE


def clip_of(motion: Motion, size: Size = "large", shape: str = "square") -> Clip:
    assert shape in SHAPES
    return Clip("red", shape, None if motion in SCALINGS else size, motion, "white")


def softened(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blurred and noisy, as a small autoencoder makes them."""
    rng = np.random.default_rng(0)
    blurred = [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(0.7))) for frame in frames]
    return np.clip(np.stack(blurred) + rng.normal(0, 6, frames.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("motion", MOTIONS)
def test_true_clips_pass_and_soft_ones_too(motion: Motion) -> None:
    for size, shape in (("small", "triangle"), ("large", "circle")):
        clip = clip_of(motion, size, shape)
        assert judge(draw_clip(clip), clip).passed
    assert judge(softened(draw_clip(clip)), clip).passed


@pytest.mark.parametrize("motion", MOTIONS)
def test_each_motion_is_told_from_all_others(motion: Motion) -> None:
    frames = draw_clip(clip_of(motion))

    for other in MOTIONS:
        verdict = judge(frames[::2], clip_of(other))
        assert verdict.motion == (other == motion)
        assert all((verdict.background, verdict.count, verdict.colour, verdict.shape))


@pytest.mark.parametrize("motion", [motion for motion in MOTIONS if motion != "still"])
@pytest.mark.parametrize("spoil", ["reversed", "frozen", "shuffled", "jumping", "half as far"])
def test_spoiled_motion_is_rejected(motion: Motion, spoil: str) -> None:
    clip = clip_of(motion)
    frames = draw_clip(clip)
    order = {
        "reversed": np.arange(17)[::-1],
        "frozen": np.full(17, 8),
        "shuffled": np.random.default_rng(0).permutation(17),
        "jumping": np.repeat((0, 16), (8, 9)),
        "half as far": np.arange(17) // 2 + 4,
    }[spoil]

    verdict = judge(frames[order], clip)

    assert not verdict.motion
    assert all((verdict.background, verdict.count, verdict.colour, verdict.shape))


def test_still_shape_that_trembles_far_is_rejected() -> None:
    clip = clip_of("still", "small")
    frames = draw_clip(clip)

    trembling = np.stack([np.roll(frame, (-1) ** index * 8, axis=1) for index, frame in enumerate(frames)])

    assert not judge(trembling, clip).motion


def test_still_shape_that_grows_is_rejected() -> None:
    growing = draw_clip(clip_of("grow"))

    assert not judge(growing, clip_of("still")).motion


@pytest.mark.parametrize(
    ("attribute", "value"), [("colour", "orange"), ("shape", "circle"), ("size", "small"), ("background", "gray")]
)
def test_one_wrong_attribute_is_named(attribute: str, value: str) -> None:
    clip = clip_of("bottom to top")

    verdict = judge(draw_clip(clip), replace(clip, **{attribute: value}))

    assert not getattr(verdict, attribute)
    names = ("background", "count", "colour", "shape", "size", "motion")
    assert all(getattr(verdict, name) for name in names if name != attribute)


@pytest.mark.parametrize(("attribute", "value"), [("colour", "blue"), ("shape", "circle"), ("background", "black")])
def test_attribute_that_changes_halfway_is_rejected(attribute: str, value: str) -> None:
    clip = clip_of("left to right")
    other = draw_clip(replace(clip, **{attribute: value}))

    verdict = judge(np.concatenate([draw_clip(clip)[:9], other[9:]]), clip)

    assert not getattr(verdict, attribute)


def test_empty_frames_second_shapes_and_noise_are_rejected() -> None:
    clip = clip_of("left to right", "small")
    frames = draw_clip(clip)
    blank = frames.copy()
    blank[5:8] = PALETTE["white"]
    twice = np.minimum(frames, np.roll(frames, 24, axis=1))
    noise = np.random.default_rng(0).integers(0, 256, (17, 16, 16, 3), dtype=np.uint8)

    assert not judge(blank, clip).count
    assert not judge(twice, clip).count
    assert not judge(noise, clip).passed


def test_one_bad_frame_is_forgiven() -> None:
    clip = clip_of("left to right")
    frames = draw_clip(clip)
    frames[16] = PALETTE["white"]

    assert judge(frames, clip).passed


def test_other_lengths_are_judged_alike() -> None:
    clip = clip_of("grow")

    assert judge(draw_clip(clip, num_frames=33)[::4], clip).passed
    assert len(path_of(clip, 9)) == 9
