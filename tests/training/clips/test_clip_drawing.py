from __future__ import annotations

import numpy as np
import pytest

from clips_training.clips import (
    LARGEST,
    MOTIONS,
    NUM_FRAMES,
    SCALINGS,
    SMALLEST,
    Clip,
    Motion,
    all_clips,
    draw_clip,
    path_of,
    random_clip,
    random_path,
)
from shapes_training.drawing import PALETTE


def test_clip_is_rgb_bytes_of_the_length_and_size_asked_for() -> None:
    frames = draw_clip(Clip("red", "circle", "large", "still", "black"), num_frames=5, size=32)

    assert frames.shape == (5, 32, 32, 3)
    assert frames.dtype == np.uint8
    assert tuple(frames[4, 16, 16]) == PALETTE["red"]
    assert tuple(frames[4, 0, 0]) == PALETTE["black"]


@pytest.mark.parametrize(
    ("motion", "axis", "direction"),
    [("left to right", 0, 1), ("right to left", 0, -1), ("top to bottom", 1, 1), ("bottom to top", 1, -1)],
)
def test_motion_goes_where_it_says_at_constant_speed(motion: Motion, axis: int, direction: int) -> None:
    path = path_of(Clip("red", "square", "small", motion, "white"))

    steps = direction * np.diff(path[:, axis])
    assert steps.min() == pytest.approx(steps.max())
    assert direction * (path[-1, axis] - path[0, axis]) == pytest.approx(60)
    assert np.all(path[:, 1 - axis] == 64)


def test_growing_and_shrinking_are_each_other_reversed() -> None:
    growing = draw_clip(Clip("red", "triangle", None, "grow", "white"))
    shrinking = draw_clip(Clip("red", "triangle", None, "shrink", "white"))

    assert np.array_equal(growing, shrinking[::-1])
    radii = path_of(Clip("red", "triangle", None, "grow", "white"))[:, 2]
    assert (radii[0], radii[-1]) == (SMALLEST, LARGEST)


def test_shape_never_touches_the_border() -> None:
    for clip in all_clips()[:36]:
        frames = draw_clip(clip)
        border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
        assert (border == PALETTE[clip.background]).all(), clip


def test_all_clips_are_different_and_random_ones_are_among_them() -> None:
    rng = np.random.default_rng(0)
    clips = set(all_clips())

    assert len(clips) == len(all_clips()) == 2304
    chosen = [random_clip(rng) for _ in range(500)]
    assert clips.issuperset(chosen)
    assert {clip.motion for clip in chosen} == set(MOTIONS)


def test_random_paths_are_straight_and_stay_on_the_picture() -> None:
    rng = np.random.default_rng(0)

    for _ in range(50):
        path = random_path(rng)
        assert path.shape == (NUM_FRAMES, 3)
        assert np.allclose(np.diff(path, n=2, axis=0), 0, atol=1e-9)
        assert (path[:, :2] > 0).all()
        assert (path[:, :2] < 128).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_size_and_motion_that_contradict_are_refused(motion: Motion) -> None:
    with pytest.raises(ValueError, match="grows or shrinks has no size"):
        Clip("red", "circle", "small" if motion in SCALINGS else None, motion, "white")


def test_shape_of_the_colour_of_its_background_is_refused() -> None:
    with pytest.raises(ValueError, match="can not be seen"):
        Clip("red", "circle", "small", "still", "red")
