"""The language model of Qwen2.5-VL as a text encoder: a causal decoder whose last hidden states are the condition.

Qwen2.5-VL technical report, arXiv:2502.13923. A token has three positions (time, row, column), which are equal for
text: for text alone the rotation is the plain one. The head that predicts tokens is not read.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from sglang_core import Attention

from ..layers import Linear, PackedLinear, RMSNorm, RotaryTable, pack_linears, rotate_halves
from .configs import TextEncoderConfig

#: How different releases of transformers store the language model, the more specific first.
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
_NOT_READ = ("visual.", "model.visual.", "lm_head.")


def rename_text_weight(stored: str) -> str | None:
    """Return the name that ``Qwen2TextEncoder`` has for a stored weight; ``None`` for what it does not read."""
    if stored.startswith(_NOT_READ) or stored.endswith("rotary_emb.inv_freq"):
        return None
    prefix = next((prefix for prefix in _PREFIXES if stored.startswith(prefix)), "")
    return stored.removeprefix(prefix)


class Qwen2TextEncoder(nn.Module):
    """Token ids to hidden states. Parameters are empty until weights are read by name."""

    def __init__(self, config: TextEncoderConfig, attention: Attention) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = _Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_DecoderLayer(config, attention) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the normalised last hidden states (batch, tokens, hidden_size) of ``token_ids`` (batch, tokens).

        Rows of different lengths are padded at the end with any id: no token sees what comes after it, so the states
        of the prompt itself do not depend on the padding.
        """
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        return self.decode(self.embed_tokens(token_ids), positions)

    def decode(self, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the normalised last hidden states of embedded tokens ``hidden`` (batch, tokens, hidden_size).

        :param positions: whole numbers (tokens,), or (3, tokens) where time, row and column differ.
        """
        rotary = RotaryTable.of_angles(self._angles(positions))
        for layer in self.layers:
            hidden = layer(hidden, rotary)
        normed: torch.Tensor = self.norm(hidden)
        return normed

    def _angles(self, positions: torch.Tensor) -> torch.Tensor:
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
        frequencies = 1 / self.config.rope_theta**exponents
        if positions.dim() == 1:
            return torch.outer(positions.float(), frequencies)
        axes = [index % 3 for index, size in enumerate(self.config.mrope_section) for _ in range(size)]
        return positions[axes].float().T * frequencies

    def encode(self, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the hidden states of each prompt's token ids, (its tokens, hidden_size), all prompts in one pass."""
        longest = max(len(prompt) for prompt in prompts)
        rows = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        states = self(torch.tensor(rows, device=self.norm.weight.device))
        return [states[row, : len(prompt)] for row, prompt in enumerate(prompts)]

    def streamed_layers(self) -> list[nn.Module]:
        """Return what may come to the device one after the other in ``forward``, in the order of use."""
        return list(self.layers)

    def prepare(self) -> None:
        """Pack the weights for speed, once, after loading and after everything that changes weights by name."""
        for layer in self.layers:
            if isinstance(layer, _DecoderLayer):
                layer.self_attn.prepare()
                layer.mlp.prepare()


class _Embedding(nn.Module):
    def __init__(self, num_entries: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_entries, size), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(ids, self.weight)


class _DecoderLayer(nn.Module):
    def __init__(self, config: TextEncoderConfig, attention: Attention) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = _CausalAttention(config, attention)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = _GatedPerceptron(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: torch.Tensor, rotary: RotaryTable) -> torch.Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary)
        update: torch.Tensor = self.mlp(self.post_attention_layernorm(hidden))
        return hidden + update


class _CausalAttention(nn.Module):
    """Attention to the tokens before; several query heads share a head of keys and values."""

    def __init__(self, config: TextEncoderConfig, attention: Attention) -> None:
        super().__init__()
        size = config.hidden_size
        self.head_dim = size // config.num_attention_heads
        self.attention = attention
        self.q_proj = Linear(size, size)
        self.k_proj = Linear(size, config.num_key_value_heads * self.head_dim)
        self.v_proj = Linear(size, config.num_key_value_heads * self.head_dim)
        self.o_proj = Linear(size, size, bias=False)
        self.qkv: PackedLinear | None = None

    def forward(self, hidden: torch.Tensor, rotary: RotaryTable) -> torch.Tensor:
        if self.qkv is not None:
            projected = self.qkv.split(hidden)
        else:
            projected = (self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden))
        query, key, value = (each.view(*each.shape[:2], -1, self.head_dim) for each in projected)
        query, key = rotate_halves(query, rotary), rotate_halves(key, rotary)
        attended = self.attention.attend(query, key, value, is_causal=True)
        update: torch.Tensor = self.o_proj(attended.flatten(2))
        return update

    def prepare(self) -> None:
        self.qkv = pack_linears(self, ("q_proj", "k_proj", "v_proj"), "qkv")


class _GatedPerceptron(nn.Module):
    """SwiGLU: a gate through SiLU times a linear layer, then a linear layer."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = Linear(size, inner_size, bias=False)
        self.up_proj = Linear(size, inner_size, bias=False)
        self.down_proj = Linear(inner_size, size, bias=False)
        self.gate_up: PackedLinear | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.gate_up is not None:
            gate, up = self.gate_up.split(hidden)
            inner = functional.silu(gate) * up
        else:
            inner = self.gate_proj(hidden, "silu") * self.up_proj(hidden)
        update: torch.Tensor = self.down_proj(inner)
        return update

    def prepare(self) -> None:
        self.gate_up = pack_linears(self, ("gate_proj", "up_proj"), "gate_up")
