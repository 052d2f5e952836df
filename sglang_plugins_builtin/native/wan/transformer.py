"""The video transformer of Wan 2.1 and 2.2.

What does not change from step to step is computed once per run and given to every :meth:`WanTransformer.forward`:
keys and values of the conditions (:meth:`~WanTransformer.prepare_text`), rotary tables
(:meth:`~WanTransformer.rope`), and what the timesteps do (:meth:`~WanTransformer.modulations`). Tokens are (batch,
tokens, channels), frame by frame and row by row.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from attrs import evolve, frozen
from torch import nn
from torch.nn import functional

from sglang_core import Attention

from ..layers import LayerNorm, Linear, RotaryTable, TimestepEmbedding, pack_linears, sinusoidal_embedding
from .block import CrossKeys, StepModulation, WanBlock, modulated
from .transformer_config import WanConfig

#: How attention gets to know how often the padding of a text counts: by a bias on its keys, by the log-sum-exp of the
#: others, or not at all, so that every row of padding has a key.
Padding = Literal["bias", "log-sum-exp", "rows"]


def stored_name(name: str) -> str | None:
    """Return the parameter that a stored weight belongs to; some files hold norms that the model never had."""
    return None if ".norm_added_q." in name else name


@frozen(eq=False, kw_only=True)
class TextCondition:
    """What the blocks attend to beside the tokens, computed once per run."""

    blocks: Sequence[CrossKeys]


class WanTransformer(nn.Module):
    """The transformer; parameters are named as in ``WanTransformer3DModel`` of diffusers and created empty.

    :param attention: of the tokens among themselves.
    :param cross_attention: of the tokens to text and image.
    :param padding: how ``cross_attention`` gets to know how often padding counts; ``bias`` needs one that takes a
        mask, ``log-sum-exp`` one that returns it, ``rows`` is slower and asks for nothing.
    """

    #: What torch.compile compiles once for all.
    _repeated_blocks = ("WanBlock",)
    #: Of ``forward``: latents and modulation change from step to step, text and rotations do not.
    step_arguments = (0, 3)

    def __init__(
        self, config: WanConfig, attention: Attention, cross_attention: Attention, *, padding: Padding = "bias"
    ) -> None:
        super().__init__()
        self.config = config
        self._padding = padding
        self.patch_embedding = _PatchEmbedding(config)
        self.condition_embedder = _ConditionEmbedder(config)
        self.blocks = nn.ModuleList(WanBlock(config, attention, cross_attention) for _ in range(config.num_layers))
        self.proj_out = Linear(config.size, config.num_out_channels * math.prod(config.patch_size))
        self.scale_shift_table = _empty(1, 2, config.size)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype it computes in."""
        return self.patch_embedding.weight.dtype

    def streamed_layers(self) -> Sequence[nn.Module]:
        """Return what may come to the device one after the other in ``forward``, in the order of use."""
        return list(self.blocks)

    def prepare(self) -> None:
        """Compute query, key and value of self-attention as one product from now on.

        Call it after loading and after everything that finds weights by name.
        """
        for block in self.blocks:
            pack_linears(block.get_submodule("attn1"), ("to_q", "to_k", "to_v"), into="to_qkv")

    def prepare_text(
        self, states: torch.Tensor, image: torch.Tensor | None = None, *, padded_length: int = 512
    ) -> TextCondition:
        """Return keys and values of every block for a prompt.

        Wan attends to zeros after the text as to any other token. They are all equal, so one is computed, and counts
        as often as it would be there.

        :param states: of the text encoder (batch, tokens, text_dim) at their real length; in a batch zeros follow
            the shorter ones.
        :param image: of the image encoder (batch, image tokens, image_dim), for models that have one; with
            ``pos_embed_seq_len`` (2 * batch, image tokens, image_dim), the first and last frame of each sample.
        :param padded_length: the length with padding that the model was trained with.
        """
        num_pads = padded_length - states.shape[1]
        biases = self._pad_biases(num_pads)
        embedder = self.condition_embedder
        rows = functional.pad(states.to(self.dtype), (0, 0, 0, len(biases)))
        text = embedder.text_embedder(rows)
        pictures = None
        if image is not None and embedder.image_embedder is not None:
            pictures = embedder.image_embedder(image.to(self.dtype))
        bias = None
        if self._padding == "bias" and num_pads > 1:
            bias = text.new_tensor([0.0] * states.shape[1] + biases).view(1, 1, 1, -1)
        last_count = max(num_pads, 1) if self._padding == "log-sum-exp" else 1
        keys = (block(None, text=text, image=pictures) for block in self.blocks)
        return TextCondition(blocks=[evolve(each, bias=bias, last_count=last_count) for each in keys])

    def _pad_biases(self, num_pads: int) -> list[float]:
        """Return the bias of each row of padding that is kept."""
        if self._padding == "rows":
            return [0.0] * num_pads
        if self._padding == "log-sum-exp":
            return [0.0] * min(num_pads, 1)
        return logarithms_of(num_pads, self.dtype)

    def rope(self, frames: int, height: int, width: int, *, device: torch.device | str | None = None) -> RotaryTable:
        """Return the rotary table of latents of this size: a part of each head for frame, row and column."""
        grid = self.grid(frames, height, width)
        head_dim = self.config.attention_head_dim
        plane = 2 * (head_dim // 6)
        angles: list[torch.Tensor] = []
        for axis, (count, size) in enumerate(zip(grid, (head_dim - 2 * plane, plane, plane), strict=True)):
            frequencies = 10000.0 ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
            along = torch.outer(torch.arange(count, dtype=torch.float64), frequencies)
            shape = [1, 1, 1, along.shape[1]]
            shape[axis] = count
            angles.append(along.view(shape).expand(*grid, -1))
        table = RotaryTable.of_angles(torch.cat(angles, dim=-1).flatten(0, 2))
        return table.to(device or self.scale_shift_table.device)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return frames, rows and columns of tokens for latents of this size."""
        by_frame, by_row, by_column = self.config.patch_size
        return frames // by_frame, height // by_row, width // by_column

    def modulations(self, timesteps: torch.Tensor) -> list[StepModulation]:
        """Return what each step's timestep does.

        :param timesteps: (steps,), or (steps, tokens) for a timestep of each token; equal ones that follow each other
            are computed once.
        """
        per_token = timesteps if timesteps.dim() == 2 else timesteps.unsqueeze(1)
        spans = [torch.unique_consecutive(row, return_counts=True) for row in per_token]
        distinct, places = torch.unique(torch.cat([values for values, _ in spans]), return_inverse=True)
        embedder = self.condition_embedder
        time = embedder.embed_time(distinct, self.dtype)
        blocks = embedder.time_proj(functional.silu(time)).unflatten(-1, (6, -1)).float()
        out = self.scale_shift_table.float() + time.float().unsqueeze(1)
        result = []
        for (_, counts), rows in zip(spans, places.split([len(values) for values, _ in spans]), strict=True):
            lengths = tuple(counts.tolist()) if len(counts) > 1 else ()
            result.append(StepModulation(blocks=blocks[rows], out=out[rows], lengths=lengths))
        return result

    def forward(
        self, latents: torch.Tensor, text: TextCondition, rope: RotaryTable, modulation: StepModulation
    ) -> torch.Tensor:
        """Return the predicted flow (batch, out_channels, frames, height, width), in the dtype of the weights.

        :param latents: (batch, in_channels, frames, height, width); what does not fill a patch is left out.
        :param text: for as many samples, or for one that serves them all.
        """
        grid = self.grid(*latents.shape[2:])
        tokens = self.patch_embedding(latents.to(self.dtype), grid)
        for block, keys in zip(self.blocks, text.blocks, strict=True):
            tokens = block(tokens, rope, modulation, keys.matching(len(tokens)))
        return self.project(tokens, modulation, grid)

    def project(self, tokens: torch.Tensor, modulation: StepModulation, grid: tuple[int, int, int]) -> torch.Tensor:
        """Return the prediction that the tokens of the last block stand for."""
        shift, scale = modulation.out.unbind(1)
        tokens = modulated(tokens, shift, 1 + scale, modulation.lengths, self.config.eps)
        patches = self.proj_out(tokens).view(len(tokens), *grid, *self.config.patch_size, -1)
        # (batch, frames, rows, columns, patch frames, patch rows, patch columns, channels)
        flow: torch.Tensor = patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return flow


class _PatchEmbedding(nn.Module):
    """A convolution whose kernel is as wide as its stride: one product with the values of each patch."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.weight = _empty(config.size, config.in_channels, *config.patch_size)
        self.bias = _empty(config.size)

    def forward(self, latents: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        frames, height, width = (count * size for count, size in zip(grid, self.patch_size, strict=True))
        within = [part for pair in zip(grid, self.patch_size, strict=True) for part in pair]
        patches = latents[:, :, :frames, :height, :width].reshape(*latents.shape[:2], *within)
        # (batch, channels, frames, patch frames, rows, ...) -> (batch, frames, rows, columns, channels, patch ...)
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        return functional.linear(patches, self.weight.flatten(1), self.bias)


class _ConditionEmbedder(nn.Module):
    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.freq_dim = config.freq_dim
        self.time_embedder = TimestepEmbedding(config.freq_dim, config.size)
        self.time_proj = Linear(config.size, 6 * config.size)
        self.text_embedder = _TextEmbedder(config)
        self.image_embedder = None if config.image_dim is None else _ImageEmbedder(config, config.image_dim)

    def embed_time(self, timesteps: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return (timesteps, size): computed in the precision of its own weights, then rounded to ``dtype``."""
        frequencies = sinusoidal_embedding(timesteps.float(), self.freq_dim)
        embedded: torch.Tensor = self.time_embedder(frequencies.to(self.time_embedder.linear_1.weight.dtype))
        return embedded.to(dtype)


class _TextEmbedder(nn.Module):
    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.linear_1 = Linear(config.text_dim, config.size)
        self.linear_2 = Linear(config.size, config.size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.linear_2(self.linear_1(states, "gelu_tanh"))
        return embedded


class _ImageEmbedder(nn.Module):
    def __init__(self, config: WanConfig, image_dim: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(image_dim, eps=1e-5)
        self.norm2 = LayerNorm(config.size, eps=1e-5)
        net = {"0": nn.ModuleDict({"proj": Linear(image_dim, image_dim)}), "2": Linear(image_dim, config.size)}
        self.ff = nn.ModuleDict({"net": nn.ModuleDict(net)})
        self.pos_embed = None
        if config.pos_embed_seq_len is not None:
            self.pos_embed = _empty(1, config.pos_embed_seq_len, image_dim)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.pos_embed is not None:
            states = states.reshape(-1, 2 * states.shape[1], states.shape[2]) + self.pos_embed
        inner = self.ff.get_submodule("net.0.proj")(self.norm1(states), "gelu")
        embedded: torch.Tensor = self.norm2(self.ff.get_submodule("net.2")(inner))
        return embedded


def logarithms_of(count: int, dtype: torch.dtype) -> list[float]:
    """Return numbers of ``dtype`` whose exponentials sum up to ``count``, to within 1e-5 of it.

    One number is enough in float32. In bfloat16 the logarithm of 500 is off by up to 1.5 %, so what is lost by rounding
    it down gets a number of its own.
    """
    numbers: list[float] = []
    rest = float(count)
    while rest > 1e-5 * count:
        number = torch.tensor(math.log(rest), dtype=dtype)
        if number.item() > math.log(rest):
            number = torch.nextafter(number, number.new_tensor(-math.inf))
        numbers.append(number.item())
        rest -= math.exp(numbers[-1])
    return numbers


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape), requires_grad=False)
