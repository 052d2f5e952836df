from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from shapes_training.captions import (
    canonical_caption,
    free_caption,
    held_out_captions,
    is_held_out,
    training_scene,
)
from shapes_training.drawing import Item, Scene, random_scene

SMALL_RED_CIRCLE = Item("red", "circle", "small")
BLUE_SQUARE = Item("blue", "square", "medium")


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (
            Scene((SMALL_RED_CIRCLE, BLUE_SQUARE), "white", relation="above"),
            "a small red circle above a blue square on a white background",
        ),
        (
            Scene((BLUE_SQUARE, SMALL_RED_CIRCLE), "gray", relation="left of"),
            "a blue square to the left of a small red circle on a gray background",
        ),
        (Scene((BLUE_SQUARE,), "orange", place="center"), "a blue square on an orange background"),
        (
            Scene((Item("orange", "star", "medium"),), "black", place="top left"),
            "an orange star at the top left on a black background",
        ),
    ],
)
def test_canonical_caption_is_plain_english(scene: Scene, caption: str) -> None:
    assert canonical_caption(scene) == caption


def test_canonical_captions_of_different_scenes_differ() -> None:
    rng = np.random.default_rng(0)
    scenes = {random_scene(rng) for _ in range(3000)}

    assert len({canonical_caption(scene) for scene in scenes}) == len(scenes)


def test_free_captions_vary_and_never_lose_a_colour() -> None:
    rng = np.random.default_rng(0)
    scene = Scene((SMALL_RED_CIRCLE, BLUE_SQUARE), "green", relation="below")

    captions = {free_caption(scene, rng) for _ in range(300)}

    assert len(captions) > 100
    for caption in captions:
        assert all(word in caption.lower() for word in ("red", "blue", "green"))


def test_white_shape_keeps_its_background_in_words() -> None:
    rng = np.random.default_rng(0)
    scene = Scene((Item("white", "star", "large"),), "black", place="left")

    assert all("black" in free_caption(scene, rng) for _ in range(100))


def test_articles_fit() -> None:
    rng = np.random.default_rng(0)

    for _ in range(2000):
        words = free_caption(random_scene(rng), rng).lower().split()
        for article, word in pairwise(words):
            assert not (article == "a" and word.startswith("orange"))
            assert not (article == "an" and not word.startswith(("orange", "image")))


def test_held_out_scenes_never_occur_in_training() -> None:
    rng = np.random.default_rng(0)

    assert not any(is_held_out(training_scene(rng)) for _ in range(500))
    assert all(is_held_out(scene) for _, scene in held_out_captions(100))


def test_background_does_not_bring_a_held_out_scene_back() -> None:
    for _, scene in held_out_captions(50):
        for background in ("gray", "purple"):
            assert is_held_out(Scene(scene.items, background, place=scene.place, relation=scene.relation))


def test_about_a_tenth_is_held_out() -> None:
    rng = np.random.default_rng(0)

    share = np.mean([is_held_out(random_scene(rng)) for _ in range(4000)])

    assert 0.07 < share < 0.13


def test_held_out_captions_are_the_same_every_time_and_half_pairs() -> None:
    first = held_out_captions(40)

    assert first == held_out_captions(40)
    assert sum(scene.relation is not None for _, scene in first) == 20
    assert 10 <= sum(caption == canonical_caption(scene) for caption, scene in first) <= 25
