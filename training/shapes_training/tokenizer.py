"""A byte-level BPE tokenizer that knows the words of the captions.

QwenImagePipeline wraps each prompt in a chat template and drops the first 34 tokens,
which is how many the template's beginning has in the vocabulary of Qwen2.5-VL. Our
vocabulary has whole words for the template, so that the number is the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from .captions import canonical_caption, free_caption
from .drawing import random_scene

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PROMPT_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
NUM_DROPPED_TOKENS = 34
#: Of the template after the prompt.
NUM_END_TOKENS = 5


def prepare_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """Read the tokenizer, or create and keep it: a trained model is bound to its vocabulary."""
    if not folder.exists():
        tokenizer = create_tokenizer()
        partial = folder.with_name(folder.name + f".{os.getpid()}")
        tokenizer.save_pretrained(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster, and its vocabulary is the same
            shutil.rmtree(partial)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    check_template(tokenizer)
    return tokenizer


def create_tokenizer(num_scenes: int = 4000, seed: int = 7) -> Qwen2Tokenizer:
    """Train the vocabulary on captions and on the template; the same every time."""
    rng = np.random.default_rng(seed)
    plain_template = PROMPT_TEMPLATE
    for token in SPECIAL_TOKENS:
        plain_template = plain_template.replace(token, " ")
    corpus = [plain_template.format("")]
    for _ in range(num_scenes):
        scene = random_scene(rng)
        corpus += [canonical_caption(scene), free_caption(scene, rng)]
    # Every word also as the first of a sentence, with and without a capital.
    words = sorted({word.strip(".,") for text in corpus for word in text.split()})
    words += [word.capitalize() for word in words]
    corpus += [*words, *(f" {word}" for word in words)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # With no limit that matters, merging goes on until every word is one token.
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.train_from_iterator(corpus, trainer)
    return _as_qwen2(bpe)


def _as_qwen2(bpe: Tokenizer) -> Qwen2Tokenizer:
    model = json.loads(bpe.to_str())["model"]
    vocab: dict[str, int] = dict(model["vocab"])
    for token in SPECIAL_TOKENS:
        vocab[token] = len(vocab)
    # transformers 5 takes vocab= and merges=; the older names are accepted and ignored.
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(merge) for merge in model["merges"]],
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=1024,
        padding_side="right",
    )
    check_template(tokenizer)
    return tokenizer


def check_template(tokenizer: Qwen2Tokenizer) -> None:
    """Raise unless the pipeline drops exactly the beginning of its template."""
    start = PROMPT_TEMPLATE.split("{}")[0]
    prefix = tokenizer(start)["input_ids"]
    whole = tokenizer(PROMPT_TEMPLATE.format("a red circle"))["input_ids"]
    words = tokenizer.convert_ids_to_tokens(whole[len(prefix) :])
    if len(prefix) != NUM_DROPPED_TOKENS or whole[: len(prefix)] != prefix:
        raise ValueError(f"the template begins with {len(prefix)} tokens, not {NUM_DROPPED_TOKENS}")
    if words[:3] != ["a", "Ġred", "Ġcircle"]:
        raise ValueError(f"the words of a caption are cut into {words}")


def check_pipeline_template(pipeline: QwenImagePipeline) -> None:
    """Raise if the installed diffusers wraps prompts in another way than these weights were trained with."""
    actual = (pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx)
    if actual != (PROMPT_TEMPLATE, NUM_DROPPED_TOKENS):
        raise ValueError(f"the pipeline's prompt template has changed: {actual}")


def tokenize(
    tokenizer: Qwen2Tokenizer, captions: Sequence[str], num_text_tokens: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (batch, 34 + text tokens), padded to ``num_text_tokens`` if it is given.

    A longer caption raises: a caption that is cut describes another picture.
    """
    wrapped = [PROMPT_TEMPLATE.format(caption) for caption in captions]
    if num_text_tokens is None:
        batch = tokenizer(wrapped, padding=True, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]
    length = NUM_DROPPED_TOKENS + num_text_tokens
    longest = max(len(ids) for ids in tokenizer(wrapped)["input_ids"])
    if longest > length:
        raise ValueError(f"a caption has {longest - NUM_DROPPED_TOKENS} tokens, more than {num_text_tokens}")
    batch = tokenizer(wrapped, padding="max_length", max_length=length, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]
