from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from shapes_training.drawing import (
    COLOURS,
    PALETTE,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    Item,
    Scene,
    draw,
    random_scene,
)
from shapes_training.judge import judge, look


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def blurred(picture: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def test_true_scenes_pass(rng: np.random.Generator) -> None:
    for _ in range(150):
        scene = random_scene(rng)
        assert judge(draw(scene, rng), scene).passed, scene


def test_slightly_soft_and_noisy_pictures_of_true_scenes_pass(rng: np.random.Generator) -> None:
    passed = []
    for _ in range(100):
        scene = random_scene(rng)
        picture = blurred(draw(scene, rng), 0.8).astype(np.float32)
        noisy = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
        passed.append(judge(noisy, scene).passed)

    assert np.mean(passed) > 0.95


def test_other_resolutions_are_judged_alike(rng: np.random.Generator) -> None:
    for _ in range(20):
        scene = random_scene(rng)
        assert judge(draw(scene, rng, size=256), scene).passed, scene


@pytest.mark.parametrize(("attribute", "choices"), [("colour", COLOURS), ("shape", SHAPES), ("size", SIZES)])
def test_one_wrong_attribute_is_named(rng: np.random.Generator, attribute: str, choices: tuple[str, ...]) -> None:
    for _ in range(60):
        scene = random_scene(rng)
        which = int(rng.integers(len(scene.items)))
        others = [choice for choice in choices if choice != getattr(scene.items[which], attribute)]
        item = replace(scene.items[which], **{attribute: str(rng.choice(others))})
        items = tuple(item if index == which else kept for index, kept in enumerate(scene.items))

        verdict = judge(draw(scene, rng), replace(scene, items=items))

        assert not verdict.passed
        assert not getattr(verdict, attribute)


def test_wrong_place_is_rejected(rng: np.random.Generator) -> None:
    for place in PLACES:
        scene = Scene((Item("red", "triangle", "medium"),), "white", place=place)
        for other in PLACES:
            assert judge(draw(scene, rng), replace(scene, place=other)).position == (place == other)


def test_wrong_relation_and_swapped_shapes_are_rejected(rng: np.random.Generator) -> None:
    for relation in RELATIONS:
        items = (Item("red", "triangle", "medium"), Item("blue", "star", "small"))
        scene = Scene(items, "white", relation=relation)
        picture = draw(scene, rng)

        assert not judge(picture, replace(scene, items=items[::-1])).passed
        for other in RELATIONS:
            assert judge(picture, replace(scene, relation=other)).passed == (relation == other)


def test_wrong_background_is_rejected(rng: np.random.Generator) -> None:
    scene = Scene((Item("red", "triangle", "medium"),), "white", place="left")

    verdict = judge(draw(scene, rng), replace(scene, background="gray"))

    assert not verdict.background
    assert all((verdict.colour, verdict.shape, verdict.size, verdict.position))


def test_missing_and_additional_shapes_are_rejected(rng: np.random.Generator) -> None:
    single = Scene((Item("red", "circle", "small"),), "white", place="left")
    pair = Scene((Item("red", "circle", "small"), Item("blue", "star", "small")), "white", relation="left of")

    assert not judge(draw(single, rng), pair).count
    assert not judge(draw(pair, rng), single).count


@pytest.mark.parametrize("kind", ["empty", "noise", "gradient"])
def test_pictures_of_nothing_are_rejected(rng: np.random.Generator, kind: str) -> None:
    pictures = {
        "empty": np.full((128, 128, 3), PALETTE["white"], np.uint8),
        "noise": rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        "gradient": np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None, None] * 2, (128, 128, 3)),
    }
    for _ in range(20):
        assert not judge(pictures[kind], random_scene(rng)).passed


def test_blob_is_no_shape() -> None:
    y, x = np.mgrid[:128, :128]
    picture = np.full((128, 128, 3), PALETTE["white"], np.uint8)
    picture[(np.abs(x - 64) < 20) & (np.abs(y - 64) < 20) & ((np.abs(x - 64) < 7) | (np.abs(y - 64) < 7))] = PALETTE[
        "red"
    ]

    _, found = look(picture)

    assert [region.shape for region in found] == [None]


def test_washed_out_colour_is_no_colour() -> None:
    scene = Scene((Item("red", "circle", "large"),), "white", place="center")
    picture = draw(scene).astype(np.float32)

    pale = (0.5 * picture + 0.5 * 245).astype(np.uint8)

    assert not judge(pale, scene).passed
