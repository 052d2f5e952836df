"""One block of Wan's transformer: self-attention, attention to text and image, and a perceptron."""

import math

import torch
from attrs import evolve, frozen
from torch import nn

from sglang_core import Attention

from ..layers import (
    FeedForward,
    LayerNorm,
    Linear,
    Modulation,
    PackedLinear,
    RMSNorm,
    RotaryTable,
    gated_add,
    modulated_norm,
    rotate_pairs,
)
from ..layers.norms import widened_rms_norm
from .transformer_config import WanConfig


@frozen(eq=False, kw_only=True)
class CrossKeys:
    """Keys and values of one block's cross-attention, (batch, tokens, heads, head_dim) each."""

    key: torch.Tensor
    value: torch.Tensor
    image_key: torch.Tensor | None = None
    image_value: torch.Tensor | None = None
    #: Added to the scores of the text's keys, (1, 1, 1, keys); None where every key counts once.
    bias: torch.Tensor | None = None
    #: How often the last key of the text counts, where the log-sum-exp of the others tells its share.
    last_count: int = 1

    def matching(self, batch: int) -> "CrossKeys":
        """Return views for so many samples, where one prompt serves them all."""
        if self.key.shape[0] == batch:
            return self
        return evolve(
            self,
            key=_repeated(self.key, batch),
            value=_repeated(self.value, batch),
            image_key=None if self.image_key is None else _repeated(self.image_key, batch),
            image_value=None if self.image_value is None else _repeated(self.image_value, batch),
        )


@frozen(eq=False, kw_only=True)
class StepModulation:
    """What the timestep of one step does.

    One timestep for all tokens is the rule. Where each token has its own, those that follow each other with the same
    one are a span, and the tables have a row for each span.
    """

    #: Float32 (spans, 6, size), to which each block adds its own table.
    blocks: torch.Tensor
    #: Float32 (spans, 2, size): shift and scale before the output projection.
    out: torch.Tensor
    #: How many tokens each span has; empty where one covers them all.
    lengths: tuple[int, ...] = ()

    def tokens(self, start: int, stop: int) -> "StepModulation":
        """Return the part of the tokens ``start`` to ``stop``, for ranks that share the tokens."""
        if not self.lengths:
            return self
        rows, lengths, end = [], [], 0
        for row, length in enumerate(self.lengths):
            begin, end = end, end + length
            if kept := max(min(end, stop) - max(begin, start), 0):
                rows.append(row)
                lengths.append(kept)
        return StepModulation(
            blocks=self.blocks[rows], out=self.out[rows], lengths=tuple(lengths) if len(lengths) > 1 else ()
        )


class WanBlock(nn.Module):
    """One of the equal blocks; it is called as a module both for keys and for tokens."""

    def __init__(self, config: WanConfig, attention: Attention, cross_attention: Attention) -> None:
        super().__init__()
        self.eps = config.eps
        self.attn1 = _SelfAttention(config, attention)
        self.attn2 = _CrossAttention(config, cross_attention)
        self.norm2 = LayerNorm(config.size, config.eps) if config.cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(config.size, config.ffn_dim)
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, config.size), requires_grad=False)

    def forward(
        self,
        tokens: torch.Tensor | None,
        rope: RotaryTable | None = None,
        modulation: StepModulation | None = None,
        keys: CrossKeys | None = None,
        *,
        text: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
    ) -> torch.Tensor | CrossKeys:
        """Return the tokens after this block; without tokens, keys and values of its conditions.

        Both are calls of the module, so that whatever brings its weights to the device when it is called works.
        """
        if tokens is None:
            assert text is not None
            return self.attn2.keys(text, image)
        assert rope is not None
        assert modulation is not None
        assert keys is not None
        lengths = modulation.lengths
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (
            self.scale_shift_table.float() + modulation.blocks
        ).unbind(1)
        attended = self.attn1(modulated(tokens, shift, 1 + scale, lengths, self.eps), rope)
        tokens = _gated(tokens, gate, attended, lengths)
        tokens = tokens + self.attn2(self.norm2(tokens), keys)
        changed = self.ffn(modulated(tokens, ffn_shift, 1 + ffn_scale, lengths, self.eps))
        return _gated(tokens, ffn_gate, changed, lengths)


class _SelfAttention(nn.Module):
    to_q: Linear | None
    to_k: Linear | None
    to_v: Linear | None
    to_qkv: PackedLinear | None

    def __init__(self, config: WanConfig, attention: Attention) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention = attention
        self.to_q = Linear(config.size, config.size)
        self.to_k = Linear(config.size, config.size)
        self.to_v = Linear(config.size, config.size)
        self.to_qkv = None
        self.to_out = nn.ModuleList([Linear(config.size, config.size)])
        self.norm_q = RMSNorm(config.size, config.eps)
        self.norm_k = RMSNorm(config.size, config.eps)

    def forward(self, x: torch.Tensor, rope: RotaryTable) -> torch.Tensor:
        query, key, value = self._project(x)
        attended = self.attention.attend(
            self._rotated(query, self.norm_q, rope),
            self._rotated(key, self.norm_k, rope),
            _heads(value, self.num_heads),
        )
        projected: torch.Tensor = self.to_out[0](attended.flatten(-2))
        return projected

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.to_qkv is not None:
            return self.to_qkv.split(x)
        assert self.to_q is not None
        assert self.to_k is not None
        assert self.to_v is not None
        return self.to_q(x), self.to_k(x), self.to_v(x)

    def _rotated(self, x: torch.Tensor, norm: RMSNorm, rope: RotaryTable) -> torch.Tensor:
        """Normalise over all heads together, then rotate each, without rounding in between."""
        wide = _heads(widened_rms_norm(x, norm.weight, norm.eps), self.num_heads)
        return rotate_pairs(wide, rope).to(x.dtype)


class _CrossAttention(nn.Module):
    def __init__(self, config: WanConfig, attention: Attention) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention = attention
        self.to_q = Linear(config.size, config.size)
        self.to_k = Linear(config.size, config.size)
        self.to_v = Linear(config.size, config.size)
        self.to_out = nn.ModuleList([Linear(config.size, config.size)])
        self.norm_q = RMSNorm(config.size, config.eps)
        self.norm_k = RMSNorm(config.size, config.eps)
        self.has_image = config.added_kv_proj_dim is not None
        if config.added_kv_proj_dim is not None:
            self.add_k_proj = Linear(config.added_kv_proj_dim, config.size)
            self.add_v_proj = Linear(config.added_kv_proj_dim, config.size)
            self.norm_added_k = RMSNorm(config.size, config.eps)

    def keys(self, text: torch.Tensor, image: torch.Tensor | None) -> CrossKeys:
        keys = CrossKeys(
            key=_heads(self.norm_k(self.to_k(text)), self.num_heads), value=_heads(self.to_v(text), self.num_heads)
        )
        if image is None or not self.has_image:
            return keys
        return evolve(
            keys,
            image_key=_heads(self.norm_added_k(self.add_k_proj(image)), self.num_heads),
            image_value=_heads(self.add_v_proj(image), self.num_heads),
        )

    def forward(self, x: torch.Tensor, keys: CrossKeys) -> torch.Tensor:
        query = _heads(self.norm_q(self.to_q(x)), self.num_heads)
        if keys.last_count > 1:
            attended = attend_to_padded(self.attention, query, keys.key, keys.value, keys.last_count)
        else:
            attended = self.attention.attend(query, keys.key, keys.value, mask=keys.bias)
        if keys.image_key is not None and keys.image_value is not None:
            attended = attended + self.attention.attend(query, keys.image_key, keys.image_value)
        projected: torch.Tensor = self.to_out[0](attended.flatten(-2))
        return projected


def attend_to_padded(
    attention: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, last_count: int
) -> torch.Tensor:
    """Return attention to keys of which the last counts ``last_count`` times, without a mask.

    The share of the last follows from its score and the log-sum-exp of the others.

    :param query: (batch, query tokens, heads, head_dim); ``key`` and ``value`` (batch, keys, heads, head_dim).
    """
    attended, lse = attention.attend_with_lse(query, key[:, :-1], value[:, :-1])
    scores = torch.einsum("bqhd,bhd->bqh", query.float(), key[:, -1].float()) * query.shape[-1] ** -0.5
    share = torch.sigmoid(scores + math.log(last_count) - lse).unsqueeze(-1)
    return torch.lerp(attended.float(), value[:, -1:].float().expand(attended.shape), share).to(query.dtype)


def modulated(
    tokens: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, lengths: tuple[int, ...], eps: float
) -> torch.Tensor:
    """Normalise tokens, times scale plus shift of each span, both (spans, size)."""
    if not lengths:
        return modulated_norm(tokens, Modulation(shift[0], scale[0]), eps)
    parts = zip(tokens.split_with_sizes(lengths, 1), shift, scale, strict=True)
    return torch.cat([modulated_norm(part, Modulation(by, factor), eps) for part, by, factor in parts], dim=1)


def _gated(tokens: torch.Tensor, gate: torch.Tensor, change: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Add the change times the gate of each span: (spans, size)."""
    if not lengths:
        return gated_add(tokens, gate[0], change)
    parts = zip(tokens.split_with_sizes(lengths, 1), gate, change.split_with_sizes(lengths, 1), strict=True)
    return torch.cat([gated_add(part, factor, by) for part, factor, by in parts], dim=1)


def _heads(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    return x.view(*x.shape[:-1], num_heads, -1)


def _repeated(keys: torch.Tensor, batch: int) -> torch.Tensor:
    return keys.expand(batch, -1, -1, -1)
