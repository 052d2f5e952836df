"""How Qwen-Image puts a prompt to its text encoder: a chat, whose fixed beginning is cut off the result."""

from collections.abc import Sequence

import torch
from attrs import frozen

from .tokenizer import Qwen2Tokenizer

#: The most tokens of a prompt that the model takes.
MAX_PROMPT_TOKENS = 1024
#: As many as are used unless a request asks for more.
DEFAULT_PROMPT_TOKENS = 512

_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_TURN = "<|im_end|>\n<|im_start|>"
_EDIT_TASK = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)


@frozen
class PromptTemplate:
    """The chat around a prompt. Wording and cut are part of the trained model."""

    #: The task, from the system.
    task: str
    #: How many tokens at the start of the encoded text are cut off.
    num_dropped_tokens: int
    #: What stands before the prompt for each image; ``{}`` is its number from 1.
    per_image: str = ""

    def text(self, prompt: str, num_images: int = 0) -> str:
        """Return the whole text for the encoder; ``<|image_pad|>`` stands once for each of the images."""
        images = "".join(self.per_image.format(number) for number in range(1, num_images + 1))
        return f"<|im_start|>system\n{self.task}{_TURN}user\n{images}{prompt}{_TURN}assistant\n"


TEXT_TO_IMAGE = PromptTemplate(
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:",
    num_dropped_tokens=34,
)
#: One image, without a number.
EDIT = PromptTemplate(_EDIT_TASK, num_dropped_tokens=64, per_image=_IMAGE)
#: Several images.
EDIT_PLUS = PromptTemplate(_EDIT_TASK, num_dropped_tokens=64, per_image="Picture {}: " + _IMAGE)


def prompt_tokens(tokenizer: Qwen2Tokenizer, prompt: str, max_prompt_tokens: int = DEFAULT_PROMPT_TOKENS) -> list[int]:
    """Return the token ids of a text-to-image prompt in its template.

    A long text loses its end before it is encoded, which changes nothing: no token sees what comes after it.
    """
    kept = min(max_prompt_tokens, MAX_PROMPT_TOKENS)
    return tokenizer(TEXT_TO_IMAGE.text(prompt), TEXT_TO_IMAGE.num_dropped_tokens + kept)


def pad_states(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the states (tokens, size) of several prompts as one batch, and which of its tokens are real.

    The first is (batch, tokens of the longest, size), with zeros at the end of shorter ones; the second bool (batch,
    tokens), or ``None`` where all have one length.
    """
    batch = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    lengths = torch.tensor([len(each) for each in states], device=batch.device)
    if bool((lengths == batch.shape[1]).all()):
        return batch, None
    return batch, torch.arange(batch.shape[1], device=batch.device) < lengths[:, None]
