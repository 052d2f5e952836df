"""Words for scenes: a canonical caption, many free ones, and captions kept out of training."""

from __future__ import annotations

import hashlib

import numpy as np

from .drawing import Colour, Item, Place, Relation, Scene, Shape, Size, random_scene

#: What the pipeline is given in place of a caption for the unguided half of a step.
EMPTY_CAPTION = " "

COLOUR_WORDS: dict[Colour, tuple[str, ...]] = {
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "orange": ("orange",),
    "purple": ("purple", "purple", "violet"),
    "black": ("black",),
    "white": ("white",),
    "gray": ("gray", "grey"),
}
SHAPE_WORDS: dict[Shape, tuple[str, ...]] = {
    "circle": ("circle", "circle", "disc", "disk"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
}
SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("", "", "", "", "medium", "medium-sized"),
    "large": ("large", "large", "big", "big", "huge"),
}
PLACE_WORDS: dict[Place, tuple[str, ...]] = {
    "center": ("", "", "in the center", "in the centre", "in the middle", "at the center"),
    "left": ("on the left", "on the left", "at the left", "on the left side"),
    "right": ("on the right", "on the right", "at the right", "on the right side"),
    "top": ("at the top", "at the top", "on top", "in the top part"),
    "bottom": ("at the bottom", "at the bottom", "in the bottom part"),
    "top left": ("at the top left", "in the top left corner", "in the upper left corner", "in the top left"),
    "top right": ("at the top right", "in the top right corner", "in the upper right corner", "in the top right"),
    "bottom left": (
        "at the bottom left",
        "in the bottom left corner",
        "in the lower left corner",
        "in the bottom left",
    ),
    "bottom right": (
        "at the bottom right",
        "in the bottom right corner",
        "in the lower right corner",
        "in the bottom right",
    ),
}
RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "above": ("above", "above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "underneath", "beneath"),
    "left of": ("left of", "to the left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "to the right of", "on the right of"),
}
#: Where the two shapes of a pair are, for captions that place each of them.
SIDES: dict[Relation, tuple[Place, Place]] = {
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "left of": ("left", "right"),
    "right of": ("right", "left"),
}
OPENINGS = ("a picture of", "an image of", "a drawing of", "draw", "show")
BACKGROUND_WORDS = ("on a {} background", "on a {} background", "on {}", "against a {} background")


def with_article(words: str) -> str:
    """Put "a" or "an" before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def canonical_caption(scene: Scene) -> str:
    """The plain caption of a scene; equal captions mean equal scenes."""
    return f"{_canonical_subject(scene)} on {with_article(scene.background)} background"


def _canonical_subject(scene: Scene) -> str:
    names = [
        with_article(" ".join(([] if item.size == "medium" else [item.size]) + [item.colour, item.shape]))
        for item in scene.items
    ]
    if scene.relation is not None:
        words = {"left of": "to the left of", "right of": "to the right of"}.get(scene.relation, scene.relation)
        return f"{names[0]} {words} {names[1]}"
    assert scene.place is not None
    if scene.place == "center":
        return names[0]
    return f"{names[0]} {PLACE_WORDS[scene.place][0]}"


def is_held_out(scene: Scene) -> bool:
    """Whether a scene never occurs in training: a tenth of all, on whatever background.

    Background aside, so that colour, shape, size and place (or relation) of a
    held-out scene have never been seen together.
    """
    digest = hashlib.sha256(_canonical_subject(scene).encode()).digest()
    return digest[0] * 256 + digest[1] < 65536 // 10


def training_scene(rng: np.random.Generator, pair_fraction: float = 0.5) -> Scene:
    """A random scene that is not held out."""
    scene = random_scene(rng, pair_fraction)
    while is_held_out(scene):
        scene = random_scene(rng, pair_fraction)
    return scene


def free_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many captions of a scene: synonyms, word order, articles, defaults left unsaid.

    Left unsaid mean: medium size, in the center, on white, and "and" or "next to"
    read from left to right.
    """
    background = _choose(rng, COLOUR_WORDS[scene.background])
    subject = _free_pair(scene, rng) if scene.relation is not None else _free_single(scene, rng)
    says_background = scene.background != "white" or _has_white(scene) or rng.random() < 0.6
    if not says_background:
        text = subject
    elif rng.random() < 0.7:
        text = f"{subject} {_on(background, rng)}"
    elif rng.random() < 0.5:
        text = f"{subject}, {background} background"
    else:
        text = f"{_on(background, rng)}, {subject}"
    if rng.random() < 0.12:
        text = f"{_choose(rng, OPENINGS)} {text}"
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.15 else "")


def _free_single(scene: Scene, rng: np.random.Generator) -> str:
    assert scene.place is not None
    name = _free_name(scene.items[0], rng)
    place = _choose(rng, PLACE_WORDS[scene.place])
    if not place:
        return name
    return f"{place}, {name}" if rng.random() < 0.1 else f"{name} {place}"


def _free_pair(scene: Scene, rng: np.random.Generator) -> str:
    assert scene.relation is not None
    first, second = (_free_name(item, rng) for item in scene.items)
    chance = rng.random()
    if chance < 0.15:
        here, there = (_choose(rng, PLACE_WORDS[side]) for side in SIDES[scene.relation])
        return f"{first} {here} and {second} {there}"
    if chance < 0.3 and scene.relation == "left of":
        return f"{first} {_choose(rng, ('and', 'and', 'next to', 'beside'))} {second}"
    return f"{first} {_choose(rng, RELATION_WORDS[scene.relation])} {second}"


def _free_name(item: Item, rng: np.random.Generator) -> str:
    size = _choose(rng, SIZE_WORDS[item.size])
    colour, shape = _choose(rng, COLOUR_WORDS[item.colour]), _choose(rng, SHAPE_WORDS[item.shape])
    words = f"{size} {colour} {shape}".strip()
    chance = rng.random()
    if chance < 0.8:
        return with_article(words)
    return words if chance < 0.93 else f"the {words}"


def _on(background: str, rng: np.random.Generator) -> str:
    words = _choose(rng, BACKGROUND_WORDS).format(background)
    return words.replace(" a orange", " an orange")


def _has_white(scene: Scene) -> bool:
    return any(item.colour == "white" for item in scene.items)


def _choose(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def held_out_captions(count: int, seed: int = 20) -> list[tuple[str, Scene]]:
    """The same list every time: scenes never trained on, single and pair by turns.

    Half of the captions are canonical, half are free.
    """
    rng = np.random.default_rng(seed)
    chosen: list[tuple[str, Scene]] = []
    while len(chosen) < count:
        scene = random_scene(rng, pair_fraction=float(len(chosen) % 2))
        if not is_held_out(scene):
            continue
        is_canonical = len(chosen) % 4 < 2
        chosen.append((canonical_caption(scene) if is_canonical else free_caption(scene, rng), scene))
    return chosen
