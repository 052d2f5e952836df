"""The transformer of Qwen-Image: two streams of tokens, text and image, that attend to each other in every block.

Qwen-Image technical report, arXiv:2508.02324. What does not change from step to step is computed once by
``prepare_text``, ``rope`` and ``modulations``; ``forward`` is what is left of a step.
"""

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import nn

from sglang_core import Attention

from ..layers import Linear, Modulation, RMSNorm, TimestepEmbedding, modulated_norm, sinusoidal_embedding
from .block import BlockModulation, QwenImageBlock
from .configs import QwenImageTransformerConfig
from .positions import JointRotary, joint_rotary

_EPS = 1e-6
#: Timesteps count from 0 to this; the model was trained on 0 to 1.
_NUM_TIMESTEPS = 1000
_SINUSOIDS = 256


@frozen(eq=False)
class TextCondition:
    """The projected text of a batch of prompts, the same in every step."""

    #: (batch, text tokens, channels)
    tokens: torch.Tensor
    #: Which tokens count, bool (batch, text tokens); ``None``: all.
    mask: torch.Tensor | None = None


@frozen(eq=False)
class StepModulation:
    """What one timestep does in all blocks and before the last projection."""

    blocks: tuple[BlockModulation, ...]
    final: Modulation


class QwenImageTransformer(nn.Module):
    """Predicts the velocity of packed latents. Parameters are empty until weights are read by name."""

    #: What torch.compile compiles once for all.
    _repeated_blocks = ("QwenImageBlock",)
    #: Of ``forward``: latents and modulation change from step to step, text and rotations do not.
    step_arguments = (0, 3)

    def __init__(self, config: QwenImageTransformerConfig, attention: Attention) -> None:
        super().__init__()
        self.config = config
        size = config.channels
        self.time_text_embed = nn.ModuleDict({"timestep_embedder": TimestepEmbedding(_SINUSOIDS, size)})
        self.txt_norm = RMSNorm(config.joint_attention_dim, _EPS)
        self.img_in = Linear(config.in_channels, size)
        self.txt_in = Linear(config.joint_attention_dim, size)
        self.transformer_blocks = nn.ModuleList(
            QwenImageBlock(size, config.num_attention_heads, attention, is_last=index == config.num_layers - 1)
            for index in range(config.num_layers)
        )
        self.norm_out = nn.ModuleDict({"linear": Linear(size, 2 * size)})
        self.proj_out = Linear(size, config.patch_size**2 * config.out_channels)

    def forward(
        self, latents: torch.Tensor, text: TextCondition, rotary: JointRotary, modulation: StepModulation
    ) -> torch.Tensor:
        """Return the velocity for packed ``latents`` (batch, image tokens, in_channels).

        Tokens of reference images come last. They have rows in the result too, which mean nothing.
        """
        image, words = self.img_in(latents), text.tokens
        mask = _joint_mask(text.mask, image.shape[1])
        for block, of_block in zip(self.transformer_blocks, modulation.blocks, strict=True):
            image, words = block(image, words, of_block, rotary, mask)
        velocity: torch.Tensor = self.proj_out(modulated_norm(image, modulation.final, _EPS))
        return velocity

    def prepare_text(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> TextCondition:
        """Project the text encoder's ``states`` (batch, text tokens, joint_attention_dim), once per run.

        :param mask: which of them count, (batch, text tokens); columns at the end that count for no prompt are cut.
        """
        if mask is not None:
            mask = mask.bool()
            columns = mask.any(dim=0).nonzero()
            length = int(columns[-1]) + 1 if len(columns) else mask.shape[1]
            states, mask = states[:, :length], mask[:, :length]
            mask = None if bool(mask.all()) else mask
        return TextCondition(self.txt_in(self.txt_norm(states.to(self.dtype))), mask)

    def rope(self, image_shapes: Sequence[tuple[int, int, int]], text_length: int) -> JointRotary:
        """Return the rotations of the tokens, once per run.

        :param image_shapes: frames, rows and columns of tokens: first of the image that is made, then of each
            reference image.
        :param text_length: the number of text tokens in the longest prompt.
        """
        return joint_rotary(image_shapes, text_length, self.config.axes_dims_rope, self.txt_norm.weight.device)

    def modulations(self, timesteps: torch.Tensor) -> list[StepModulation]:
        """Return what each of ``timesteps`` (steps,), from 0 to 1000 in float32, does in the blocks, once per run.

        After it ``img_mod`` and ``txt_mod`` of the blocks are not used until the timesteps change.
        """
        # rounded as the model has been made with, in this order
        times = timesteps.to(device=self.txt_norm.weight.device, dtype=self.dtype) / _NUM_TIMESTEPS
        num_steps = len(times)
        if self.config.zero_cond_t:
            times = torch.cat((times, times.new_zeros(1)))
        waves = sinusoidal_embedding(times, _SINUSOIDS, scale=_NUM_TIMESTEPS)
        embedded = self.time_text_embed["timestep_embedder"](waves.to(self.dtype))
        conditions = nn.functional.silu(embedded)
        of_blocks = [block.modulations(conditions, num_steps) for block in self._blocks()]
        scale, shift = self.norm_out["linear"](conditions[:num_steps]).chunk(2, dim=-1)
        return [
            StepModulation(tuple(of_block[step] for of_block in of_blocks), Modulation(shift[step], 1 + scale[step]))
            for step in range(num_steps)
        ]

    def prepare(self) -> None:
        """Pack the weights for speed, once, after loading and after everything that changes weights by name."""
        for block in self._blocks():
            block.prepare()

    def streamed_layers(self) -> list[nn.Module]:
        """Return what may come to the device one after the other in ``forward``, in the order of use."""
        return list(self.transformer_blocks)

    def used_once(self) -> list[nn.Module]:
        """Return the parts of blocks that only ``modulations`` uses: they may stay in host memory."""
        return [part for block in self._blocks() for part in (block.img_mod, block.txt_mod)]

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision it computes in."""
        return self.txt_norm.weight.dtype

    def _blocks(self) -> list[QwenImageBlock]:
        return [block for block in self.transformer_blocks if isinstance(block, QwenImageBlock)]


def _joint_mask(text_mask: torch.Tensor | None, num_image_tokens: int) -> torch.Tensor | None:
    if text_mask is None:
        return None
    image_mask = text_mask.new_ones(len(text_mask), num_image_tokens)
    return torch.cat((text_mask, image_mask), dim=1)[:, None, None, :]  # (batch, heads, queries, keys)
