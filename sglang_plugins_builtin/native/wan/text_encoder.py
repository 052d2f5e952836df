"""The encoder of UMT5, run on a prompt at its real length.

The pipelines of diffusers pad every prompt to 512 tokens, encode them all and throw the padding's part away. Nothing of
a prompt depends on its padding, so it is left out: a prompt of 30 tokens is 14 times less work.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from sglang_core import Attention

from ..layers import Linear, RMSNorm
from .text_encoder_config import UMT5Config

#: In float16 the second half of the feed-forward layers overflows: it is kept in float32, as transformers keeps it.
FLOAT32_PARTS_OF_FLOAT16 = ("wo",)


def stored_name(name: str) -> str | None:
    """Return the parameter that a stored weight belongs to: the embedding is stored under one or both of its names."""
    return "shared.weight" if name == "encoder.embed_tokens.weight" else name


def padded(states: Sequence[torch.Tensor], length: int | None = None) -> torch.Tensor:
    """Return states of several prompts as one tensor with zeros after the shorter ones.

    :param states: each (tokens, channels).
    :param length: to pad to; the longest prompt's if not given.
    :returns: (prompts, length, channels).
    """
    length = max(len(state) for state in states) if length is None else length
    return torch.stack([functional.pad(state, (0, 0, 0, length - len(state))) for state in states])


class UMT5Encoder(nn.Module):
    """The encoder; parameters are named as in ``UMT5EncoderModel`` of transformers and created empty."""

    def __init__(self, config: UMT5Config, attention: Attention) -> None:
        super().__init__()
        self.config = config
        self.shared = _Embedding(config.vocab_size, config.d_model)
        self.encoder = _Stack(config, attention)

    def streamed_layers(self) -> Sequence[nn.Module]:
        """Return what may come to the device one after the other in ``forward``, in the order of use."""
        return list(self.encoder.block)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (batch, tokens, d_model) of token ids (batch, tokens), all of one length."""
        result: torch.Tensor = self.encoder(self.shared(ids), self._buckets(ids.shape[1], ids.device))
        return result

    def _buckets(self, num_tokens: int, device: torch.device) -> torch.Tensor:
        """Return which row of the position table each pair (query token, key token) takes.

        Half of the rows are for keys before the query. Near keys have a row each, farther ones share rows whose
        width grows with the logarithm of the distance.
        """
        rows = self.config.relative_attention_num_buckets // 2
        num_near = rows // 2
        positions = torch.arange(num_tokens, device=device)
        offsets = positions[None, :] - positions[:, None]
        distances = offsets.abs()
        octaves = torch.log(distances.clamp(min=1).float() / num_near) / math.log(
            self.config.relative_attention_max_distance / num_near
        )
        far = (num_near + (octaves * (rows - num_near)).long()).clamp(max=rows - 1)
        return torch.where(distances < num_near, distances, far) + rows * (offsets > 0)


class _Stack(nn.Module):
    def __init__(self, config: UMT5Config, attention: Attention) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Block(config, attention) for _ in range(config.num_layers))
        self.final_layer_norm = _Norm(config)

    def forward(self, hidden: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            hidden = block(hidden, buckets)
        result: torch.Tensor = self.final_layer_norm(hidden)
        return result


class _Embedding(nn.Module):
    def __init__(self, num_rows: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, size), requires_grad=False)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return functional.embedding(indices, self.weight)


class _Norm(RMSNorm):
    """RMS normalisation into the dtype of the weights: the sums before it may be wider."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__(config.d_model, config.layer_norm_epsilon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).to(self.weight.dtype)


class _Block(nn.Module):
    def __init__(self, config: UMT5Config, attention: Attention) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(config, attention), _FeedForwardLayer(config)])

    def forward(self, hidden: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
        hidden = _clamped(self.layer[0](hidden, buckets))
        return _clamped(self.layer[1](hidden))


class _AttentionLayer(nn.Module):
    def __init__(self, config: UMT5Config, attention: Attention) -> None:
        super().__init__()
        self.SelfAttention = _SelfAttention(config, attention)
        self.layer_norm = _Norm(config)

    def forward(self, hidden: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
        attended: torch.Tensor = self.SelfAttention(self.layer_norm(hidden), buckets)
        return hidden + attended


class _SelfAttention(nn.Module):
    def __init__(self, config: UMT5Config, attention: Attention) -> None:
        super().__init__()
        size = config.num_heads * config.d_kv
        self.head_dim = config.d_kv
        self.attention = attention
        self.q = Linear(config.d_model, size, bias=False)
        self.k = Linear(config.d_model, size, bias=False)
        self.v = Linear(config.d_model, size, bias=False)
        self.o = Linear(size, config.d_model, bias=False)
        # T5 has the table in its first layer alone; in UMT5 every layer has its own.
        self.relative_attention_bias = _Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
        query, key, value = (part(x).view(*x.shape[:-1], -1, self.head_dim) for part in (self.q, self.k, self.v))
        # (query tokens, key tokens, heads) -> (1, heads, query tokens, key tokens)
        bias = self.relative_attention_bias(buckets).permute(2, 0, 1).unsqueeze(0).to(query.dtype)
        attended = self.attention.attend(query, key, value, mask=bias, scale=1.0)
        projected: torch.Tensor = self.o(attended.flatten(-2))
        return projected


class _FeedForwardLayer(nn.Module):
    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.DenseReluDense = _GatedPerceptron(config)
        self.layer_norm = _Norm(config)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.DenseReluDense(self.layer_norm(hidden))
        return hidden + changed


class _GatedPerceptron(nn.Module):
    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.wi_0 = Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = Linear(config.d_model, config.d_ff, bias=False)
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.wi_0(x, "gelu_tanh") * self.wi_1(x)
        outer: torch.Tensor = self.wo(inner.to(self.wo.weight.dtype))
        return outer


def _clamped(hidden: torch.Tensor) -> torch.Tensor:
    """Bring infinite values of float16 back into its range, as the model was trained to live with."""
    if hidden.dtype != torch.float16:
        return hidden
    largest = torch.finfo(torch.float16).max
    limit = torch.where(torch.isinf(hidden).any(), largest - 1000, largest)
    return torch.clamp(hidden, min=-limit, max=limit)
