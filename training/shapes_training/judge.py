"""A judge of pictures by plain geometry: what is on the picture, and is it the scene?

Nothing here is learned. The background is the commonest colour of the frame, shapes
are connected regions of another colour, and each region is named by comparing it
with the four ideal shapes of the same area. Area and centre of mass hardly suffer
when the last pixel of a corner is soft, which a bounding box does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .drawing import (
    BACKGROUNDS,
    COLOURS,
    PALETTE,
    RADII,
    SHAPES,
    Colour,
    Scene,
    Shape,
    Size,
    place_centre,
    shape_area,
    signed_distance,
)

#: Smaller specks (in pixels of a picture of 128 x 128) are dirt, not a shape.
MIN_AREA = 60
#: A region must share this much (intersection over union) with an ideal shape.
MIN_LIKENESS = 0.75
#: Mean distance to the palette colour, in 0..255 per channel, that still counts as the colour.
MAX_COLOUR_ERROR = 40.0
#: Between the place of a shape and where it was found; places are 30 apart.
MAX_PLACE_ERROR = 12.0


@dataclass(frozen=True)
class Found:
    """A region of the picture: what it looks like, where it is and its radius (in 128ths of the picture)."""

    colour: Colour | None
    shape: Shape | None
    size: Size
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Verdict:
    """Which attributes of the scene the picture has; all must be right to pass."""

    background: bool
    count: bool
    colour: bool
    shape: bool
    size: bool
    position: bool

    @property
    def passed(self) -> bool:
        """Whether everything is right."""
        return all((self.background, self.count, self.colour, self.shape, self.size, self.position))


def judge(picture: NDArray[np.uint8], scene: Scene) -> Verdict:
    """Compare a square RGB picture (height, width, 3) with a scene.

    In a pair the shapes are told apart by their places, so swapped shapes are wrong
    in colour or shape, and wrongly arranged ones in position.
    """
    background, found = look(picture)
    if len(found) != len(scene.items):
        return Verdict(background == scene.background, False, False, False, False, False)
    position = True
    if scene.relation is not None:
        found = _in_order(found, scene)
        position = _is_related(found, scene)
    else:
        assert scene.place is not None
        x, y = place_centre(scene.place)
        position = max(abs(found[0].x - x), abs(found[0].y - y)) <= MAX_PLACE_ERROR
    pairs = list(zip(found, scene.items, strict=True))
    return Verdict(
        background=background == scene.background,
        count=True,
        colour=all(region.colour == item.colour for region, item in pairs),
        shape=all(region.shape == item.shape for region, item in pairs),
        size=all(region.size == item.size for region, item in pairs),
        position=position,
    )


def look(picture: NDArray[np.uint8]) -> tuple[Colour | None, list[Found]]:
    """Name the background and describe every region that stands out from it."""
    pixels = picture.astype(np.float32)
    names = _nearest_colours(pixels)
    frame = np.concatenate([names[:2].ravel(), names[-2:].ravel(), names[:, :2].ravel(), names[:, -2:].ravel()])
    background_index = int(np.bincount(frame, minlength=len(BACKGROUNDS)).argmax())
    background = BACKGROUNDS[background_index]
    inside = pixels[names == background_index]
    error = np.abs(inside.mean(0) - np.array(PALETTE[background])).max()
    scale = picture.shape[0] / 128.0
    found = [
        _describe(pixels, region, names, inside.mean(0), scale)
        for region in _regions(names != background_index)
        if region.sum() >= MIN_AREA * scale**2
    ]
    return (background if error <= MAX_COLOUR_ERROR else None), found


def _nearest_colours(pixels: NDArray[np.float32]) -> NDArray[np.intp]:
    palette = np.array([PALETTE[name] for name in BACKGROUNDS], np.float32)
    nearest: NDArray[np.intp] = np.square(pixels[:, :, None] - palette).sum(-1).argmin(-1)
    return nearest


def _regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Connected parts of a mask: every pixel takes the largest number among its neighbours, until stable."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        spread = np.maximum.reduce([labels, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
        spread = np.where(mask, spread, 0)
        # Jump along the numbers: the pixel a label names may know a larger one already.
        flat = np.concatenate([[0], spread.ravel()])
        spread = flat[spread]
        if np.array_equal(spread, labels):
            break
        labels = spread
    return [labels == label for label in np.unique(labels) if label]


def _describe(
    pixels: NDArray[np.float32],
    region: NDArray[np.bool_],
    names: NDArray[np.intp],
    background: NDArray[np.float32],
    scale: float,
) -> Found:
    counts = np.bincount(names[region], minlength=len(BACKGROUNDS))
    main = int(counts.argmax())
    inside = pixels[region & (names == main)]
    mean = inside.mean(0)
    is_clear = BACKGROUNDS[main] in COLOURS and counts[main] >= 0.6 * region.sum()
    is_clear &= bool(np.abs(mean - np.array(PALETTE[BACKGROUNDS[main]])).max() <= MAX_COLOUR_ERROR)
    # The outline is where the picture is half shape, half background.
    towards = mean - background
    cover = (pixels - background) @ towards / max(float(towards @ towards), 1.0)
    outline = (cover > 0.5) & _grown(region)
    if not outline.any():
        outline = region
    rows, columns = np.nonzero(outline.any(1))[0], np.nonzero(outline.any(0))[0]
    shape = _name_shape(outline)
    radius = (float(outline.sum()) / shape_area(shape or "circle")) ** 0.5 / scale
    return Found(
        colour=BACKGROUNDS[main] if is_clear else None,
        shape=shape,
        size=min(RADII, key=lambda size: abs(RADII[size] - radius)),
        x=float(columns[0] + columns[-1] + 1) / 2 / scale,
        y=float(rows[0] + rows[-1] + 1) / 2 / scale,
        radius=radius,
    )


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    return mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def _name_shape(outline: NDArray[np.bool_]) -> Shape | None:
    """The ideal shape of equal area and centre that shares most with a region, if it is enough."""
    rows, columns = np.nonzero(outline)
    axis_x = np.arange(outline.shape[1], dtype=np.float32) - columns.mean(dtype=np.float32)
    axis_y = np.arange(outline.shape[0], dtype=np.float32) - rows.mean(dtype=np.float32)
    likeness: dict[Shape, float] = {}
    for shape in SHAPES:
        radius = float(len(rows) / shape_area(shape)) ** 0.5
        x, y = np.meshgrid(axis_x / radius, axis_y / radius)
        ideal = signed_distance(shape, x, y + _mass_offset(shape)) <= 0
        likeness[shape] = float((ideal & outline).sum() / (ideal | outline).sum())
    best = max(likeness, key=lambda shape: likeness[shape])
    return best if likeness[best] >= MIN_LIKENESS else None


def _mass_offset(shape: Shape) -> float:
    """How far the centre of mass of a shape of radius 1 is below the middle of its bounding box."""
    offsets: dict[Shape, float] = {"circle": 0.0, "square": 0.0, "triangle": 0.25 * 1.25, "star": 0.0955 * 1.12}
    return offsets[shape]


def _in_order(found: list[Found], scene: Scene) -> list[Found]:
    """The found pair sorted as the relation says: first the shape that should be the first."""
    if scene.relation in ("above", "below"):
        ordered = sorted(found, key=lambda region: region.y)
    else:
        ordered = sorted(found, key=lambda region: region.x)
    return ordered if scene.relation in ("above", "left of") else ordered[::-1]


def _is_related(found: list[Found], scene: Scene) -> bool:
    """Whether the pair is far apart along the axis of the relation and level across it."""
    apart, across = abs(found[0].x - found[1].x), abs(found[0].y - found[1].y)
    if scene.relation in ("above", "below"):
        apart, across = across, apart
    return apart >= 40.0 and across <= 24.0
