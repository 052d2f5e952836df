"""Words for clips: a canonical caption, many free ones, and captions kept out of training."""

from __future__ import annotations

import hashlib

import numpy as np

from shapes_training.captions import BACKGROUND_WORDS, COLOUR_WORDS, SHAPE_WORDS, with_article

from .clips import Clip, Motion, Size, all_clips, random_clip

#: What the pipeline is given for the unguided half of a step; it strips spaces, so a space would be no other.
EMPTY_CAPTION = ""

#: A shape of which no size is said is large.
SIZE_WORDS: dict[Size, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("", "", "", "large", "large", "big"),
}
#: As a sentence goes on ("moves") and as a description does ("moving").
VERBS: tuple[tuple[str, str], ...] = (
    ("moves", "moving"),
    ("moves", "moving"),
    ("goes", "going"),
    ("slides", "sliding"),
    ("travels", "travelling"),
)
WAYS: dict[Motion, tuple[str, ...]] = {
    "left to right": (
        "from left to right",
        "from left to right",
        "from the left to the right",
        "to the right",
        "right",
    ),
    "right to left": ("from right to left", "from right to left", "from the right to the left", "to the left", "left"),
    "top to bottom": ("from top to bottom", "from the top to the bottom", "down", "down", "downwards"),
    "bottom to top": ("from bottom to top", "from the bottom to the top", "up", "up", "upwards"),
}
#: Pairs of a verb and a participle that need no way; they replace some of those above.
DEEDS: dict[Motion, tuple[tuple[str, str], ...]] = {
    "left to right": (),
    "right to left": (),
    "top to bottom": (("falls", "falling"), ("falls down", "falling down"), ("sinks", "sinking")),
    "bottom to top": (("rises", "rising"), ("climbs", "climbing")),
    "still": (
        ("stays still", "staying still"),
        ("stands still", "standing still"),
        ("does not move", "not moving"),
        ("stays in the center", "staying in the center"),
        ("rests in the middle", "resting in the middle"),
        ("", ""),
    ),
    "grow": (
        ("grows", "growing"),
        ("grows", "growing"),
        ("grows larger", "growing larger"),
        ("gets bigger", "getting bigger"),
        ("gets larger", "getting larger"),
        ("becomes bigger", "becoming bigger"),
    ),
    "shrink": (
        ("shrinks", "shrinking"),
        ("shrinks", "shrinking"),
        ("gets smaller", "getting smaller"),
        ("becomes smaller", "becoming smaller"),
    ),
}
CANONICAL_DEEDS: dict[Motion, str] = {
    "left to right": "moves from left to right",
    "right to left": "moves from right to left",
    "top to bottom": "moves from top to bottom",
    "bottom to top": "moves from bottom to top",
    "still": "stays still",
    "grow": "grows",
    "shrink": "shrinks",
}
OPENINGS = ("a video of", "a clip of", "an animation of", "show", "draw")
#: Words that mean nothing here; training puts some into captions, so that people's own do no harm.
FILLERS = ("nice", "very", "bright", "please", "beautiful", "now", "there", "simple", "slowly", "smoothly")


def canonical_caption(clip: Clip) -> str:
    """The plain caption of a clip; equal captions mean equal clips."""
    return f"{_canonical_subject(clip)} on {with_article(clip.background)} background"


def _canonical_subject(clip: Clip) -> str:
    words = f"{clip.colour} {clip.shape}"
    name = with_article(f"small {words}" if clip.size == "small" else words)
    return f"{name} {CANONICAL_DEEDS[clip.motion]}"


def is_held_out(clip: Clip) -> bool:
    """Whether a clip never occurs in training: a tenth of all, on whatever background.

    Background aside, so that colour, shape, size and motion of a held-out clip have
    never been seen together.
    """
    digest = hashlib.sha256(_canonical_subject(clip).encode()).digest()
    return digest[0] * 256 + digest[1] < 65536 // 10


def training_clips() -> list[Clip]:
    """Every clip that is not held out, in a fixed order."""
    return [clip for clip in all_clips() if not is_held_out(clip)]


def training_clip(rng: np.random.Generator) -> Clip:
    """A random clip that is not held out."""
    clip = random_clip(rng)
    while is_held_out(clip):
        clip = random_clip(rng)
    return clip


def free_caption(clip: Clip, rng: np.random.Generator) -> str:
    """One of many captions of a clip: synonyms, word order, articles, defaults left unsaid.

    Left unsaid mean: large, standing still, on white.
    """
    background = _choose(rng, COLOUR_WORDS[clip.background])
    is_description = rng.random() < 0.4
    subject = _free_subject(clip, is_description, rng)
    says_background = clip.background != "white" or clip.colour == "white" or rng.random() < 0.6
    chance = rng.random()
    if not says_background:
        text = subject
    elif chance < 0.7:
        text = f"{subject} {_on(background, rng)}"
    elif chance < 0.85:
        text = f"{subject}, {background} background"
    else:
        text = f"{_on(background, rng)}, {subject}"
    if is_description and chance < 0.85 and rng.random() < 0.25:
        text = f"{_choose(rng, OPENINGS)} {text}"
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.15 else "")


def _free_subject(clip: Clip, is_description: bool, rng: np.random.Generator) -> str:
    name = _free_name(clip, rng)
    own = DEEDS[clip.motion]
    if own and (clip.motion not in WAYS or rng.random() < 0.35):
        deed = own[rng.integers(len(own))][is_description]
    else:
        verb = VERBS[rng.integers(len(VERBS))][is_description]
        deed = f"{verb} {_choose(rng, WAYS[clip.motion])}"
    return f"{name} {deed}".strip()


def _free_name(clip: Clip, rng: np.random.Generator) -> str:
    size = "" if clip.size is None else _choose(rng, SIZE_WORDS[clip.size])
    colour, shape = _choose(rng, COLOUR_WORDS[clip.colour]), _choose(rng, SHAPE_WORDS[clip.shape])
    words = f"{size} {colour} {shape}".strip()
    chance = rng.random()
    if chance < 0.8:
        return with_article(words)
    return words if chance < 0.9 else f"the {words}"


def _on(background: str, rng: np.random.Generator) -> str:
    return _choose(rng, BACKGROUND_WORDS).format(background).replace(" a orange", " an orange")


def with_fillers(caption: str, rng: np.random.Generator) -> str:
    """A caption with one or two words that mean nothing, anywhere."""
    words = caption.split(" ")
    for _ in range(int(rng.integers(1, 3))):
        words.insert(int(rng.integers(len(words) + 1)), _choose(rng, FILLERS))
    return " ".join(words)


def _choose(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def held_out_captions(count: int, seed: int = 20) -> list[tuple[str, Clip]]:
    """The same list every time: clips never trained on; captions are canonical and free by turns."""
    rng = np.random.default_rng(seed)
    chosen: list[tuple[str, Clip]] = []
    while len(chosen) < count:
        clip = random_clip(rng)
        if not is_held_out(clip):
            continue
        caption = canonical_caption(clip) if len(chosen) % 2 == 0 else free_caption(clip, rng)
        chosen.append((caption, clip))
    return chosen
