"""A T5 tokenizer whose pieces are the words of the captions.

The class of the pipeline's tokenizer reads words with a mark for the space before them;
it keeps no normaliser, so that a word with a capital is a piece of its own. A word that
is no piece becomes one unknown token, which training teaches to mean nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import T5Tokenizer

from .captions import canonical_caption, free_caption
from .clips import random_clip

_SPACE = "\u2581"


def prepare_tokenizer(folder: Path) -> T5Tokenizer:
    """Read the tokenizer, or create and keep it: a trained model is bound to its vocabulary."""
    if not folder.exists():
        partial = folder.with_name(folder.name + f".{os.getpid()}")
        create_tokenizer().save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster, and its vocabulary is the same
            shutil.rmtree(partial)
    tokenizer: T5Tokenizer = T5Tokenizer.from_pretrained(folder)
    return tokenizer


def create_tokenizer(num_clips: int = 8000, seed: int = 7) -> T5Tokenizer:
    """Collect the words of many captions; the same every time."""
    rng = np.random.default_rng(seed)
    words: set[str] = set()
    for _ in range(num_clips):
        clip = random_clip(rng)
        for caption in (canonical_caption(clip), free_caption(clip, rng)):
            words.update(word.strip(".,").lower() for word in caption.split())
    pieces = [f"{_SPACE}{word}" for word in sorted(words)]
    pieces += [f"{_SPACE}{word.capitalize()}" for word in sorted(words)]
    special = ("<pad>", "</s>", "<unk>")
    # Longer pieces are the likelier ones: "downwards" is not "down" and a rest.
    vocabulary = [(piece, 0.0) for piece in special] + [(",", -9.0), (".", -9.0)]
    vocabulary += [(piece, -10.0 / len(piece)) for piece in pieces]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512, padding_side="right")


def tokenize(
    tokenizer: T5Tokenizer, captions: Sequence[str], num_text_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (batch, num_text_tokens), each caption with its end and some padding.

    A longer caption raises: a caption that is cut describes another clip.
    """
    longest = max(num_tokens(tokenizer, caption) for caption in captions)
    if longest >= num_text_tokens:
        raise ValueError(f"a caption has {longest} tokens, more than {num_text_tokens - 1}")
    batch = tokenizer(list(captions), padding="max_length", max_length=num_text_tokens, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def num_tokens(tokenizer: T5Tokenizer, caption: str) -> int:
    """Tokens of a caption with its end."""
    return len(tokenizer(caption)["input_ids"])
