from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from clips_training.captions import (
    FILLERS,
    canonical_caption,
    free_caption,
    held_out_captions,
    is_held_out,
    training_clip,
    training_clips,
    with_fillers,
)
from clips_training.clips import BACKGROUNDS, Clip, all_clips, random_clip


@pytest.mark.parametrize(
    ("clip", "caption"),
    [
        (
            Clip("red", "circle", "large", "left to right", "black"),
            "a red circle moves from left to right on a black background",
        ),
        (Clip("orange", "square", "small", "still", "gray"), "a small orange square stays still on a gray background"),
        (Clip("orange", "triangle", None, "grow", "white"), "an orange triangle grows on a white background"),
    ],
)
def test_canonical_caption_is_plain_english(clip: Clip, caption: str) -> None:
    assert canonical_caption(clip) == caption


def test_canonical_captions_of_different_clips_differ() -> None:
    assert len({canonical_caption(clip) for clip in all_clips()}) == len(all_clips())


def test_free_captions_vary_and_never_lose_a_colour() -> None:
    rng = np.random.default_rng(0)
    clip = Clip("red", "circle", "small", "top to bottom", "green")

    captions = {free_caption(clip, rng) for _ in range(300)}

    assert len(captions) > 100
    for caption in captions:
        assert all(word in caption.lower() for word in ("red", "green"))


def test_white_shape_keeps_its_background_in_words() -> None:
    rng = np.random.default_rng(0)
    clip = Clip("white", "square", None, "shrink", "black")

    assert all("black" in free_caption(clip, rng) for _ in range(100))


def test_captions_of_different_motions_differ() -> None:
    rng = np.random.default_rng(0)
    meanings: dict[str, Clip] = {}
    for _ in range(5000):
        clip = random_clip(rng)
        caption = free_caption(clip, rng).lower()
        assert meanings.setdefault(caption, clip) == clip


def test_articles_and_spaces_fit() -> None:
    rng = np.random.default_rng(0)

    for _ in range(2000):
        caption = free_caption(random_clip(rng), rng)
        assert caption == " ".join(caption.split())
        for article, word in pairwise(caption.lower().split()):
            assert not (article == "a" and word.startswith("orange"))
            assert not (article == "an" and not word.startswith(("orange", "animation")))


def test_held_out_clips_never_occur_in_training_on_any_background() -> None:
    rng = np.random.default_rng(0)
    trained = set(training_clips())

    assert trained.issuperset(training_clip(rng) for _ in range(300))
    for _, clip in held_out_captions(40):
        for background in BACKGROUNDS:
            if background != clip.colour:
                other = Clip(clip.colour, clip.shape, clip.size, clip.motion, background)
                assert is_held_out(other)
                assert other not in trained


def test_about_a_tenth_is_held_out() -> None:
    assert 0.06 < 1 - len(training_clips()) / len(all_clips()) < 0.14


def test_held_out_captions_are_the_same_every_time_and_half_canonical() -> None:
    first = held_out_captions(40)

    assert first == held_out_captions(40)
    assert 20 <= sum(caption == canonical_caption(clip) for caption, clip in first) <= 25


def test_fillers_add_words_and_take_none_away() -> None:
    caption = "a red circle grows on white"

    words = with_fillers(caption, np.random.default_rng(1)).split()

    assert " ".join(word for word in words if word not in FILLERS) == caption
    assert len(words) > 6
