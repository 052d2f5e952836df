from __future__ import annotations

import numpy as np
import pytest

from shapes_training.drawing import (
    COLOURS,
    PALETTE,
    PLACES,
    RELATIONS,
    SHAPES,
    Item,
    Place,
    Relation,
    Scene,
    Shape,
    draw,
    layout,
    place_centre,
    random_scene,
    shape_extent,
    signed_distance,
)

RED_CIRCLE = Item("red", "circle", "large")
BLUE_STAR = Item("blue", "star", "medium")


@pytest.mark.parametrize("size", [64, 128, 256])
def test_picture_is_rgb_bytes_of_the_size_asked_for(size: int) -> None:
    picture = draw(Scene((RED_CIRCLE,), "white", place="center"), size=size)

    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[size // 2, size // 2]) == PALETTE["red"]
    assert tuple(picture[0, 0]) == PALETTE["white"]


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_fills_its_extent_and_is_centred(shape: Shape) -> None:
    axis = np.linspace(-1.5, 1.5, 601, dtype=np.float32)

    inside = signed_distance(shape, *np.meshgrid(axis, axis)) <= 0

    width, height = shape_extent(shape)
    for along, extent in ((inside.any(0), width), (inside.any(1), height)):
        found = axis[along]
        assert found[-1] - found[0] == pytest.approx(extent, abs=0.02)
        assert found[-1] + found[0] == pytest.approx(0, abs=0.02)


def test_edges_are_smooth() -> None:
    picture = draw(Scene((Item("black", "circle", "large"),), "white", place="center"))

    between = (picture[..., 0] > 40) & (picture[..., 0] < 220)
    assert 50 < between.sum() < 400


@pytest.mark.parametrize("place", PLACES)
def test_single_shape_stays_inside_the_picture(place: Place) -> None:
    rng = np.random.default_rng(0)

    for _ in range(20):
        picture = draw(Scene((Item("black", "star", "large"),), "white", place=place), rng)

        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (border == PALETTE["white"]).all()


@pytest.mark.parametrize("relation", RELATIONS)
def test_large_pair_does_not_touch(relation: Relation) -> None:
    scene = Scene((Item("black", "triangle", "large"), Item("red", "star", "large")), "white", relation=relation)
    rng = np.random.default_rng(1)

    for _ in range(20):
        picture = draw(scene, rng)

        lines = (picture == PALETTE["white"]).all(-1).all(1 if relation in ("above", "below") else 0)
        assert lines[56:72].any()


def test_relation_puts_the_first_shape_where_it_says() -> None:
    above = layout(Scene((RED_CIRCLE, BLUE_STAR), "white", relation="above"))
    right = layout(Scene((RED_CIRCLE, BLUE_STAR), "white", relation="right of"))

    assert above[0][1] < above[1][1]
    assert right[0][0] > right[1][0]
    assert place_centre("top left") < place_centre("center") < place_centre("bottom right")


def test_same_seed_draws_the_same_scenes() -> None:
    first, second = (np.random.default_rng(3) for _ in range(2))

    for _ in range(20):
        scene = random_scene(first)
        assert scene == random_scene(second)
        assert np.array_equal(draw(scene, first), draw(scene, second))


def test_shapes_of_random_scenes_can_be_seen_and_told_apart() -> None:
    rng = np.random.default_rng(4)

    for _ in range(300):
        scene = random_scene(rng)
        names = {(item.colour, item.shape) for item in scene.items}
        assert len(names) == len(scene.items)
        assert all(item.colour in COLOURS and item.colour != scene.background for item in scene.items)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"items": (RED_CIRCLE,)}, id="no place"),
        pytest.param({"items": (RED_CIRCLE, BLUE_STAR), "place": "left"}, id="pair with a place"),
        pytest.param({"items": (RED_CIRCLE,), "relation": "above"}, id="relation to nothing"),
        pytest.param({"items": (), "place": "left"}, id="nothing"),
    ],
)
def test_impossible_scene_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="one item and a place, or two items and a relation"):
        Scene(background="white", **arguments)  # type: ignore[arg-type]  # wrong on purpose
