"""A judge of clips by plain geometry: what is on every frame, and does it move as the clip says?

Nothing here is learned. Every frame is looked at by the judge of pictures; what it finds
is compared with the clip over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shapes_training.drawing import Colour, Floats
from shapes_training.judge import look

from .clips import RADII, SCALINGS, SIZES, Clip, path_of

#: Frames that may be wrong in background, number or colour, of 17; and in the shape, which blurs first.
WRONG_FRAMES, WRONG_SHAPES = 2, 4
#: Between the middle of the shape and where it should be, on any frame and in the mean; a motion crosses 60.
MAX_DISTANCE, MAX_MEAN_DISTANCE = 13.0, 8.0
#: Of the radius in relation to the right one in the mean, and of the whole growth, for a shape that grows or shrinks.
MAX_RADIUS_ERROR, MAX_GROWTH_ERROR = 0.2, 0.25
#: Of the radius in relation to its median, for a shape that keeps its size.
MAX_WOBBLE = 0.25


@dataclass(frozen=True)
class Verdict:
    """Which attributes of the clip the frames have; all must be right to pass."""

    background: bool
    count: bool
    colour: bool
    shape: bool
    size: bool
    motion: bool

    @property
    def passed(self) -> bool:
        """Whether everything is right."""
        return all((self.background, self.count, self.colour, self.shape, self.size, self.motion))


def judge(frames: NDArray[np.uint8], clip: Clip) -> Verdict:
    """Compare square RGB frames (frames, height, width, 3) with a clip."""
    looks = [look(frame) for frame in frames]
    allowed = len(frames) / 17
    seen = [(index, found[0]) for index, (_, found) in enumerate(looks) if len(found) == 1]
    backgrounds: list[Colour | None] = [background for background, _ in looks]
    background = sum(name != clip.background for name in backgrounds) <= WRONG_FRAMES * allowed
    if len(frames) - len(seen) > WRONG_FRAMES * allowed:
        return Verdict(background, False, False, False, False, False)
    expected = path_of(clip, len(frames))[[index for index, _ in seen]]
    actual = np.array([(found.x, found.y, found.radius) for _, found in seen])
    return Verdict(
        background=background,
        count=True,
        colour=sum(found.colour != clip.colour for _, found in seen) <= WRONG_FRAMES * allowed,
        shape=sum(found.shape != clip.shape for _, found in seen) <= WRONG_SHAPES * allowed,
        size=_has_size(actual[:, 2], clip),
        motion=_follows(actual, expected, clip),
    )


def _has_size(radii: Floats, clip: Clip) -> bool:
    """Whether a shape has its size; a shape that grows or shrinks is judged by its motion alone."""
    if clip.size is None:
        return True
    median = float(np.median(radii))
    return min(SIZES, key=lambda size: abs(np.log(RADII[size] / median))) == clip.size


def _follows(actual: Floats, expected: Floats, clip: Clip) -> bool:
    distance = np.hypot(*(actual - expected)[:, :2].T)
    if distance.max() > MAX_DISTANCE or distance.mean() > MAX_MEAN_DISTANCE:
        return False
    radii = actual[:, 2]
    if clip.motion in SCALINGS:
        growth = _growth(radii) / _growth(expected[:, 2])
        is_near = np.abs(radii / expected[:, 2] - 1).mean() <= MAX_RADIUS_ERROR
        return bool(is_near and abs(growth - 1) <= MAX_GROWTH_ERROR)
    return bool(np.abs(radii / np.median(radii) - 1).max() <= MAX_WOBBLE)


def _growth(radii: Floats) -> float:
    """How many times as large a shape is in the last quarter as in the first."""
    quarter = max(1, len(radii) // 4)
    return float(radii[-quarter:].mean() / radii[:quarter].mean())
