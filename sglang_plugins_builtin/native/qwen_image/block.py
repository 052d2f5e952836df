"""One block of the Qwen-Image transformer, and what a timestep does in it."""

import torch
from attrs import frozen
from torch import nn
from torch.nn import functional

from sglang_core import Attention

from ..layers import FeedForward, Linear, Modulation, gated_add, modulated_norm
from .joint_attention import JointAttention
from .positions import JointRotary

_EPS = 1e-6


@frozen(eq=False)
class BlockModulation:
    """What one timestep does in one block, before attention and before the perceptron of each stream."""

    image: tuple[Modulation, Modulation]
    text: tuple[Modulation, Modulation]
    #: For the tokens of reference images, where they have a modulation of their own.
    reference: tuple[Modulation, Modulation] | None = None


class QwenImageBlock(nn.Module):
    """Joint attention and a perceptron per stream, each after a modulated norm and before a gate.

    :param is_last: the text that leaves the last block is used by nobody, so it is not computed.
    """

    def __init__(self, size: int, num_heads: int, attention: Attention, *, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        # the stored names count the activation as number 0
        self.img_mod = nn.ModuleDict({"1": Linear(size, 6 * size)})
        self.txt_mod = nn.ModuleDict({"1": Linear(size, 6 * size)})
        self.attn = JointAttention(size, num_heads, attention, has_text_output=not is_last)
        self.img_mlp = FeedForward(size, 4 * size)
        self.txt_mlp: FeedForward | None = FeedForward(size, 4 * size)

    def forward(
        self,
        image: torch.Tensor,
        text: torch.Tensor,
        modulation: BlockModulation,
        rotary: JointRotary,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both streams, (batch, tokens, channels) each; ``mask`` says which text and image keys count."""
        cut = rotary.num_target_tokens
        image_update, text_update = self.attn(
            _modulated_image(image, modulation, 0, cut), modulated_norm(text, modulation.text[0], _EPS), rotary, mask
        )
        image = _add_to_image(image, image_update, modulation, 0, cut)
        image_update = self.img_mlp(_modulated_image(image, modulation, 1, cut))
        image = _add_to_image(image, image_update, modulation, 1, cut)
        if text_update is not None and self.txt_mlp is not None:
            text = gated_add(text, modulation.text[0].gate, text_update)
            text_update = self.txt_mlp(modulated_norm(text, modulation.text[1], _EPS))
            text = gated_add(text, modulation.text[1].gate, text_update)
        if image.dtype == torch.float16:  # its range is small: better the largest number than infinity
            return image.clamp(-65504, 65504), text.clamp(-65504, 65504)
        return image, text

    def modulations(self, conditions: torch.Tensor, num_steps: int) -> list[BlockModulation]:
        """Return the modulation of each step for ``conditions`` (steps, channels) after their activation.

        A further row is the condition of the tokens of reference images. The weights need not be on the device of
        ``conditions``: those that are elsewhere are copied there for this one use.
        """
        image = _modulation_rows(_project(self.img_mod, conditions))
        text = _modulation_rows(_project(self.txt_mod, conditions[:num_steps]))
        reference = image[num_steps] if len(image) > num_steps else None
        return [BlockModulation(image[step], text[step], reference) for step in range(num_steps)]

    def prepare(self) -> None:
        """Pack the weights after loading, and drop those of the text that nobody uses."""
        self.attn.prepare()
        if self.is_last:
            self.txt_mlp = None


def _project(owner: nn.ModuleDict, conditions: torch.Tensor) -> torch.Tensor:
    layer = owner["1"]
    if isinstance(layer, Linear) and layer.kernel is None and layer.weight.device != conditions.device:
        bias = None if layer.bias is None else layer.bias.to(conditions.device, non_blocking=True)
        return functional.linear(conditions, layer.weight.to(conditions.device, non_blocking=True), bias)
    projected: torch.Tensor = layer(conditions)
    return projected


def _modulated_image(image: torch.Tensor, modulation: BlockModulation, index: int, cut: int) -> torch.Tensor:
    """Return the image's tokens before attention (0) or perceptron (1); from ``cut`` on they are of references."""
    if modulation.reference is None or cut == image.shape[1]:
        return modulated_norm(image, modulation.image[index], _EPS)
    target = modulated_norm(image[:, :cut], modulation.image[index], _EPS)
    return torch.cat((target, modulated_norm(image[:, cut:], modulation.reference[index], _EPS)), dim=1)


def _add_to_image(
    image: torch.Tensor, update: torch.Tensor, modulation: BlockModulation, index: int, cut: int
) -> torch.Tensor:
    """Return the image's tokens with what came out of attention (0) or perceptron (1), through its gate."""
    if modulation.reference is None or cut == image.shape[1]:
        return gated_add(image, modulation.image[index].gate, update)
    target = gated_add(image[:, :cut], modulation.image[index].gate, update[:, :cut])
    return torch.cat((target, gated_add(image[:, cut:], modulation.reference[index].gate, update[:, cut:])), dim=1)


def _modulation_rows(table: torch.Tensor) -> list[tuple[Modulation, Modulation]]:
    """Cut (rows, 6 * channels) into shift, scale and gate before attention and before the perceptron, by row."""
    first_shift, first_scale, first_gate, second_shift, second_scale, second_gate = table.chunk(6, dim=-1)
    first_scale, second_scale = 1 + first_scale, 1 + second_scale
    return [
        (
            Modulation(first_shift[row], first_scale[row], first_gate[row]),
            Modulation(second_shift[row], second_scale[row], second_gate[row]),
        )
        for row in range(len(table))
    ]
