"""Train the text encoder to describe the scene of a caption, before the transformer has to draw it.

Which colour belongs to which shape is hard to learn from pictures alone: for most of a
long training the transformer draws all the right words in the wrong places. The same is
learned in minutes by naming the parts of the scene from the tokens after the caption.
The heads that do so are thrown away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from . import naming
from .captions import canonical_caption, free_caption, training_scene
from .drawing import BACKGROUNDS, PLACES, RELATIONS, SHAPES, SIZES, Scene
from .network import NetworkConfig, create_text_encoder, encode_text
from .optimizers import Optimizers
from .tokenizer import NUM_DROPPED_TOKENS, NUM_END_TOKENS, prepare_tokenizer, tokenize

#: Choices of every head: colour, shape and size of both shapes, place, relation, background.
NUM_CHOICES = (
    *(len(BACKGROUNDS), len(SHAPES), len(SIZES)) * 2,
    len(PLACES) + 1,
    len(RELATIONS) + 1,
    len(BACKGROUNDS),
)


@frozen(kw_only=True)
class TextConfig:
    """Training of the text encoder."""

    #: Training time; the learning rate falls to zero within it.
    minutes: float = field(default=3.0, validator=gt(0))
    #: Captions in one step.
    batch_size: int = field(default=128, validator=gt(0))
    peak_learning_rate: float = 2e-3
    seed: int = 0
    use_compile: bool = True
    #: Stop early, after so many steps.
    max_steps: int | None = None


def describe(scene: Scene) -> list[int]:
    """The right choice of every head."""
    first, last = scene.items[0], scene.items[-1]
    return [
        BACKGROUNDS.index(first.colour),
        SHAPES.index(first.shape),
        SIZES.index(first.size),
        BACKGROUNDS.index(last.colour),
        SHAPES.index(last.shape),
        SIZES.index(last.size),
        len(PLACES) if scene.place is None else PLACES.index(scene.place),
        len(RELATIONS) if scene.relation is None else RELATIONS.index(scene.relation),
        BACKGROUNDS.index(scene.background),
    ]


def train_text(config: TextConfig, network: NetworkConfig, out: Path) -> None:
    """Train until the time is used up; the result is the checkpoint. Does nothing if there is one."""
    if naming.is_trained(out):
        return
    torch.manual_seed(config.seed)
    rng = np.random.default_rng((config.seed, 3))
    tokenizer = prepare_tokenizer(out / "tokenizer")
    text_encoder = create_text_encoder(network, tokenizer)
    text_encoder.model.visual.requires_grad_(False)
    heads = nn.Linear(NUM_END_TOKENS * network.text_dim, sum(NUM_CHOICES))
    trained = nn.ModuleList([text_encoder, heads])
    optimizers = Optimizers.of(trained, config.peak_learning_rate, weight_decay=0.0)
    if config.use_compile:
        for layer in text_encoder.model.language_model.layers:
            layer.compile()

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        captions, choices = _captions(tokenizer, network, config.batch_size, rng)
        return _end_of_caption(text_encoder, tokenizer, captions, network), choices

    goal = "captions understood"
    naming.train_naming(text_encoder, heads, optimizers, config, draw, num_choices=NUM_CHOICES, goal=goal, out=out)


def _captions(
    tokenizer: Qwen2Tokenizer, network: NetworkConfig, count: int, rng: np.random.Generator
) -> tuple[list[str], torch.Tensor]:
    captions: list[str] = []
    choices: list[list[int]] = []
    while len(captions) < count:
        scene = training_scene(rng)
        caption = canonical_caption(scene) if rng.random() < 0.2 else free_caption(scene, rng)
        if len(tokenizer(caption)["input_ids"]) <= network.num_text_tokens - NUM_END_TOKENS:
            captions.append(caption)
            choices.append(describe(scene))
    return captions, torch.tensor(choices)


def _end_of_caption(
    text_encoder: Qwen2_5_VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    captions: list[str],
    network: NetworkConfig,
) -> torch.Tensor:
    """Hidden states of the tokens after the captions, (captions, end tokens * dim)."""
    ids, mask = tokenize(tokenizer, captions, network.num_text_tokens)
    hidden = encode_text(text_encoder, ids, mask)
    last = mask[:, NUM_DROPPED_TOKENS:].sum(1) - 1
    rows = torch.arange(len(captions))
    return torch.cat([hidden[rows, last - index] for index in range(NUM_END_TOKENS)], dim=1)
