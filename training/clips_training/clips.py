"""Clips of one coloured shape that moves, grows, shrinks or stays, and how they are drawn.

All lengths are in units of a picture of 128 x 128, as in ``shapes_training.drawing``;
``draw_clip`` scales them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shapes_training.drawing import BACKGROUNDS, COLOURS, PALETTE, Colour, Floats, Shape, signed_distance

Size = Literal["small", "large"]
Motion = Literal["left to right", "right to left", "top to bottom", "bottom to top", "still", "grow", "shrink"]

#: A multiple of four and one: the autoencoder makes one latent frame of the first frame, then one of every four.
NUM_FRAMES = 17
FRAME_SIZE = 64
FPS = 8

#: A star of this size would be a few pixels of edge: too little to be told from a circle.
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle")
SIZES: tuple[Size, ...] = get_args(Size)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
#: Motions that change the radius, so that a size would contradict them.
SCALINGS: tuple[Motion, ...] = ("grow", "shrink")

RADII: dict[Size, float] = {"small": 18.0, "large": 27.0}
SMALLEST, LARGEST = 13.0, 30.0
#: How near to the border the middle of a moving shape begins and ends.
MARGIN = 34.0

_DIRECTIONS: dict[Motion, tuple[int, int]] = {
    "left to right": (1, 0),
    "right to left": (-1, 0),
    "top to bottom": (0, 1),
    "bottom to top": (0, -1),
}


@dataclass(frozen=True)
class Clip:
    """One shape and what it does; the size is None for a shape that grows or shrinks."""

    colour: Colour
    shape: Shape
    size: Size | None
    motion: Motion
    background: Colour

    def __post_init__(self) -> None:
        if (self.size is None) != (self.motion in SCALINGS):
            raise ValueError("a shape that grows or shrinks has no size, any other has one")
        if self.colour == self.background:
            raise ValueError("a shape of the colour of its background can not be seen")


def all_clips() -> list[Clip]:
    """Every clip there is, in a fixed order."""
    kinds: list[tuple[Size | None, Motion]] = [
        (size, motion) for motion in MOTIONS for size in ((None,) if motion in SCALINGS else SIZES)
    ]
    return [
        Clip(colour, shape, size, motion, background)
        for background in BACKGROUNDS
        for colour in COLOURS
        if colour != background
        for shape in SHAPES
        for size, motion in kinds
    ]


def random_clip(rng: np.random.Generator) -> Clip:
    """Any clip; every motion is as likely as every other."""
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    colours = [colour for colour in COLOURS if colour != background]
    motion = MOTIONS[rng.integers(len(MOTIONS))]
    return Clip(
        colour=colours[rng.integers(len(colours))],
        shape=SHAPES[rng.integers(len(SHAPES))],
        size=None if motion in SCALINGS else SIZES[rng.integers(len(SIZES))],
        motion=motion,
        background=background,
    )


def path_of(clip: Clip, num_frames: int = NUM_FRAMES) -> Floats:
    """Where the shape is and how large: (num_frames, 3) of x, y and radius, at constant speed."""
    time = np.linspace(-1.0, 1.0, num_frames) if num_frames > 1 else np.full(1, -1.0)
    across, down = _DIRECTIONS.get(clip.motion, (0, 0))
    if clip.size is not None:
        radius = np.full(num_frames, RADII[clip.size])
    else:
        share = (time + 1) / 2 if clip.motion == "grow" else (1 - time) / 2
        radius = SMALLEST + (LARGEST - SMALLEST) * share
    reach = 64.0 - MARGIN
    return np.stack([64.0 + across * reach * time, 64.0 + down * reach * time, radius], axis=1)


def random_path(rng: np.random.Generator, num_frames: int = NUM_FRAMES) -> Floats:
    """Any straight way with any change of the radius: what the autoencoder has to be able to show."""
    start, end = rng.uniform((22, 22, 11), (106, 106, 32), size=(2, 3))
    share = rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.25, 0.5])
    end = start + share * (end - start)
    if rng.random() < 0.5:
        end[2] = start[2]
    time = np.linspace(0.0, 1.0, num_frames)[:, None]
    path: Floats = start + (end - start) * time
    return path


def draw_path(
    colour: Colour, shape: Shape, background: Colour, path: Floats, size: int = FRAME_SIZE
) -> NDArray[np.uint8]:
    """Draw a shape along a path as (frames, size, size, 3) RGB with smooth edges."""
    scale = size / 128.0
    axis = ((np.arange(size) + 0.5) / scale).astype(np.float32)
    x, y, radius = (column.astype(np.float32)[:, None, None] for column in path.T)
    across, down = np.broadcast_arrays((axis[None, None] - x) / radius, (axis[None, :, None] - y) / radius)
    cover = np.clip(0.5 - signed_distance(shape, across, down) * (radius * scale), 0.0, 1.0)[..., None]
    behind, front = (np.array(PALETTE[name], np.float32) for name in (background, colour))
    frames: NDArray[np.uint8] = np.rint(behind + cover * (front - behind)).astype(np.uint8)
    return frames


def draw_clip(clip: Clip, num_frames: int = NUM_FRAMES, size: int = FRAME_SIZE) -> NDArray[np.uint8]:
    """Draw a clip as (num_frames, size, size, 3) RGB."""
    return draw_path(clip.colour, clip.shape, clip.background, path_of(clip, num_frames), size)
