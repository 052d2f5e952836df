from __future__ import annotations

from pathlib import Path

import torch

from shapes_training.drawing import BACKGROUNDS, PLACES, RELATIONS, SHAPES, SIZES, Item, Scene
from shapes_training.naming import load_trained_text
from shapes_training.network import NetworkConfig
from shapes_training.progress import load_checkpoint
from shapes_training.train_text import NUM_CHOICES, TextConfig, describe, train_text

NETWORK = NetworkConfig(text_dim=48)


def test_scene_is_described_part_by_part() -> None:
    single = Scene((Item("red", "star", "large"),), "white", place="top left")
    pair = Scene((Item("red", "star", "large"), Item("blue", "circle", "small")), "black", relation="above")

    assert describe(single)[:6] == [BACKGROUNDS.index("red"), SHAPES.index("star"), SIZES.index("large")] * 2
    assert describe(single)[6:] == [PLACES.index("top left"), len(RELATIONS), BACKGROUNDS.index("white")]
    assert describe(pair)[3:6] == [BACKGROUNDS.index("blue"), SHAPES.index("circle"), SIZES.index("small")]
    assert describe(pair)[6:] == [len(PLACES), RELATIONS.index("above"), BACKGROUNDS.index("black")]
    assert all(choice < count for choice, count in zip(describe(pair), NUM_CHOICES, strict=True))


def test_text_encoder_is_trained_once_and_found_again(tmp_path: Path) -> None:
    config = TextConfig(minutes=5, batch_size=8, use_compile=False, max_steps=2)
    assert load_trained_text(tmp_path) is None

    train_text(config, NETWORK, tmp_path)
    weights = load_trained_text(tmp_path)
    train_text(config, NETWORK, tmp_path)

    assert weights is not None
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())
    state = load_checkpoint(tmp_path / "text.pt")
    assert state is not None
    assert state["step"] == 2
