"""Scenes of one or two coloured shapes, and how they are drawn.

All lengths are in units of a picture of 128 x 128; ``draw`` scales them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Colour = Literal["red", "green", "blue", "yellow", "orange", "purple", "black", "white", "gray"]
Shape = Literal["circle", "square", "triangle", "star"]
Size = Literal["small", "medium", "large"]
Place = Literal["center", "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right"]
Relation = Literal["above", "below", "left of", "right of"]

#: The palette is far apart in RGB, so that a judge can name a colour without doubt.
PALETTE: dict[Colour, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "green": (30, 160, 60),
    "blue": (30, 80, 220),
    "yellow": (250, 220, 40),
    "orange": (250, 135, 20),
    "purple": (140, 40, 170),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "gray": (135, 135, 135),
}
BACKGROUNDS: tuple[Colour, ...] = get_args(Colour)
#: Gray is for backgrounds alone: the soft edge between black and white is gray as well.
COLOURS: tuple[Colour, ...] = tuple(colour for colour in BACKGROUNDS if colour != "gray")
SHAPES: tuple[Shape, ...] = get_args(Shape)
SIZES: tuple[Size, ...] = get_args(Size)
PLACES: tuple[Place, ...] = get_args(Place)
RELATIONS: tuple[Relation, ...] = get_args(Relation)

#: Radius of each size; the other shapes have about the area of a circle of this radius.
RADII: dict[Size, float] = {"small": 15.5, "medium": 20.5, "large": 26.0}

#: Centre of the first shape of a pair; the second is its mirror image.
PAIR_CENTRES: dict[Relation, tuple[float, float]] = {
    "above": (64.0, 31.0),
    "below": (64.0, 97.0),
    "left of": (31.0, 64.0),
    "right of": (97.0, 64.0),
}
PLACE_MARGIN = 34.0
STAR_INNER_RATIO = 0.45


@dataclass(frozen=True)
class Item:
    """One coloured shape."""

    colour: Colour
    shape: Shape
    size: Size


@dataclass(frozen=True)
class Scene:
    """One shape at a place, or a first shape in relation to a second one."""

    items: tuple[Item, ...]
    background: Colour
    place: Place | None = None
    relation: Relation | None = None

    def __post_init__(self) -> None:
        is_single = len(self.items) == 1 and self.place is not None and self.relation is None
        is_pair = len(self.items) == 2 and self.place is None and self.relation is not None
        if not (is_single or is_pair):
            raise ValueError("a scene has one item and a place, or two items and a relation")


def place_centre(place: Place) -> tuple[float, float]:
    """Where the middle of a shape at this place is, as (x, y)."""
    far = 128.0 - PLACE_MARGIN
    x = PLACE_MARGIN if "left" in place else far if "right" in place else 64.0
    y = PLACE_MARGIN if "top" in place else far if "bottom" in place else 64.0
    return x, y


def shape_extent(shape: Shape) -> tuple[float, float]:
    """Width and height of a shape of radius 1."""
    extents: dict[Shape, tuple[float, float]] = {
        "circle": (2.0, 2.0),
        "square": (1.8, 1.8),
        "triangle": (1.25 * 3**0.5, 1.25 * 1.5),
        "star": (2 * 1.12 * 0.9511, 1.12 * 1.8090),
    }
    return extents[shape]


def shape_area(shape: Shape) -> float:
    """Area of a shape of radius 1."""
    areas: dict[Shape, float] = {
        "circle": np.pi,
        "square": 1.8**2,
        "triangle": 0.75 * 3**0.5 * 1.25**2,
        "star": 5 * 1.12**2 * STAR_INNER_RATIO * 0.5878,
    }
    return areas[shape]


def signed_distance(shape: Shape, x: Floats, y: Floats) -> Floats:
    """How far points are outside a shape of radius 1 whose bounding box is centred on 0.

    Negative inside; y points down. Exact along the edges, which is where it matters.
    """
    if shape == "circle":
        return np.hypot(x, y) - 1.0
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.9
    if shape == "triangle":
        return _folded_distance(x, y + 0.25 * -1.25, corners=3, radius=1.25, inner=0.5 * 1.25)
    return _folded_distance(x, y - 0.0955 * 1.12, corners=5, radius=1.12, inner=STAR_INNER_RATIO * 1.12)


def _folded_distance(x: Floats, y: Floats, *, corners: int, radius: float, inner: float) -> Floats:
    """Distance to a star with one corner up; the sectors are mirror images of one straight edge."""
    sector = 2 * np.pi / corners
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    reach = np.hypot(x, y)
    along, across = reach * np.cos(angle), reach * np.sin(angle)
    edge_x, edge_y = inner * np.cos(sector / 2) - radius, inner * np.sin(sector / 2)
    length = np.hypot(edge_x, edge_y)
    distance: Floats = ((along - radius) * edge_y - across * edge_x) / length
    return distance


def layout(scene: Scene, rng: np.random.Generator | None = None) -> list[tuple[float, float, float]]:
    """Centre and radius of every shape, as (x, y, radius), slightly varied if ``rng`` is given."""
    placed = []
    for index, item in enumerate(scene.items):
        if scene.relation is None:
            assert scene.place is not None
            x, y = place_centre(scene.place)
            spread_x = spread_y = 3.0
        else:
            x, y = PAIR_CENTRES[scene.relation]
            x, y = (x, y) if index == 0 else (128.0 - x, 128.0 - y)
            spread_x, spread_y = (1.5, 6.0) if y == 64.0 else (6.0, 1.5)
        radius = RADII[item.size]
        if rng is not None:
            x += rng.uniform(-spread_x, spread_x)
            y += rng.uniform(-spread_y, spread_y)
            radius *= rng.uniform(0.97, 1.03)
        placed.append((x, y, radius))
    return placed


def draw(scene: Scene, rng: np.random.Generator | None = None, size: int = 128) -> NDArray[np.uint8]:
    """Draw a scene as (size, size, 3) RGB with smooth edges."""
    scale = size / 128.0
    axis = (np.arange(size, dtype=np.float32) + 0.5) / scale
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = PALETTE[scene.background]
    for item, (x, y, radius) in zip(scene.items, layout(scene, rng), strict=True):
        low_x, high_x = _window(x, radius, scale, size)
        low_y, high_y = _window(y, radius, scale, size)
        across, down = np.meshgrid((axis[low_x:high_x] - x) / radius, (axis[low_y:high_y] - y) / radius)
        distance_pixels = signed_distance(item.shape, across, down) * (radius * scale)
        cover = np.clip(0.5 - distance_pixels, 0.0, 1.0)[..., None]
        part = picture[low_y:high_y, low_x:high_x]
        part += cover * (np.array(PALETTE[item.colour], np.float32) - part)
    return np.rint(picture).astype(np.uint8)


def _window(centre: float, radius: float, scale: float, size: int) -> tuple[int, int]:
    """The pixels that a shape can touch along one axis."""
    low, high = (centre - 1.3 * radius) * scale - 1, (centre + 1.3 * radius) * scale + 2
    return max(0, int(low)), min(size, int(high))


def random_item(rng: np.random.Generator, background: Colour) -> Item:
    """A shape that can be seen on this background."""
    colours = [colour for colour in COLOURS if colour != background]
    return Item(
        colour=colours[rng.integers(len(colours))],
        shape=SHAPES[rng.integers(len(SHAPES))],
        size=SIZES[rng.integers(len(SIZES))],
    )


def random_scene(rng: np.random.Generator, pair_fraction: float = 0.5) -> Scene:
    """A scene with one shape or, in ``pair_fraction`` of the cases, two that differ in colour or shape."""
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    first = random_item(rng, background)
    if rng.random() >= pair_fraction:
        return Scene((first,), background, place=PLACES[rng.integers(len(PLACES))])
    second = random_item(rng, background)
    while (second.colour, second.shape) == (first.colour, first.shape):
        second = random_item(rng, background)
    return Scene((first, second), background, relation=RELATIONS[rng.integers(len(RELATIONS))])
