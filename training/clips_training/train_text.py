"""Train the text encoder to describe the clip of a caption, before the transformer has to draw it.

Which colour is the background's is hard to learn from clips alone, and is learned in
minutes by naming the parts of the clip. Every token has to name all of them: wherever the
transformer's attention to the text falls at first, it finds the whole clip. The heads that
name are thrown away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import nn
from transformers import T5Tokenizer

from shapes_training import naming
from shapes_training.drawing import BACKGROUNDS

from .captions import canonical_caption, free_caption, training_clip, with_fillers
from .clips import MOTIONS, SHAPES, SIZES, Clip
from .network import NetworkConfig, create_optimizers, create_text_encoder, encode_text
from .tokenizer import num_tokens, prepare_tokenizer, tokenize

#: Choices of every head: colour, shape, size or none, motion, background.
NUM_CHOICES = (len(BACKGROUNDS), len(SHAPES), len(SIZES) + 1, len(MOTIONS), len(BACKGROUNDS))


@frozen(kw_only=True)
class TextConfig:
    """Training of the text encoder."""

    #: Training time; the learning rate falls to zero within it.
    minutes: float = field(default=3.0, validator=gt(0))
    #: Captions in one step.
    batch_size: int = field(default=128, validator=gt(0))
    peak_learning_rate: float = 2e-3
    seed: int = 0
    #: Stop early, after so many steps.
    max_steps: int | None = None


def describe(clip: Clip) -> list[int]:
    """The right choice of every head."""
    return [
        BACKGROUNDS.index(clip.colour),
        SHAPES.index(clip.shape),
        len(SIZES) if clip.size is None else SIZES.index(clip.size),
        MOTIONS.index(clip.motion),
        BACKGROUNDS.index(clip.background),
    ]


def training_caption(
    clip: Clip, tokenizer: T5Tokenizer, num_text_tokens: int, rng: np.random.Generator, canonical_fraction: float = 0.2
) -> str:
    """A caption that fits, canonical or free, now and then with words that mean nothing."""
    canonical = canonical_caption(clip)
    caption = canonical if rng.random() < canonical_fraction else free_caption(clip, rng)
    if rng.random() < 0.15:
        caption = with_fillers(caption, rng)
    # A few are long; making room for them would slow every step down.
    return caption if num_tokens(tokenizer, caption) < num_text_tokens else canonical


def train_text(config: TextConfig, network: NetworkConfig, out: Path) -> None:
    """Train until the time is used up; the result is the checkpoint. Does nothing if there is one."""
    if naming.is_trained(out):
        return
    torch.manual_seed(config.seed)
    rng = np.random.default_rng((config.seed, 3))
    tokenizer = prepare_tokenizer(out / "tokenizer")
    text_encoder = create_text_encoder(network, tokenizer)
    heads = nn.Linear(network.text_dim, sum(NUM_CHOICES))
    trained = nn.ModuleList([text_encoder, heads])
    optimizers = create_optimizers(trained, config.peak_learning_rate, weight_decay=0.0)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        clips = [training_clip(rng) for _ in range(config.batch_size)]
        captions = [training_caption(clip, tokenizer, network.num_text_tokens, rng) for clip in clips]
        ids, mask = tokenize(tokenizer, captions, network.num_text_tokens)
        choices = torch.tensor([describe(clip) for clip in clips])
        is_token = mask.bool()
        # choices of every token: (tokens of all captions, heads)
        right = choices[:, None].expand(-1, mask.shape[1], -1)[is_token]
        return encode_text(text_encoder, ids, mask)[is_token], right

    goal = "tokens tell the whole clip"
    naming.train_naming(text_encoder, heads, optimizers, config, draw, num_choices=NUM_CHOICES, goal=goal, out=out)
