"""Attention of text and image to each other."""

from collections.abc import Sequence

import torch
from torch import nn

from sglang_core import Attention

from ..layers import Linear, PackedLinear, RMSNorm, normed_rotary, pack_linears
from .positions import JointRotary

_EPS = 1e-6


class JointAttention(nn.Module):
    """One attention over the tokens of both streams, with projections of their own; text comes first.

    :param has_text_output: whether the text attends too, or is only attended to.
    """

    def __init__(self, size: int, num_heads: int, attention: Attention, *, has_text_output: bool) -> None:
        super().__init__()
        self.head_dim = size // num_heads
        self.attention = attention
        self.has_text_output = has_text_output
        self.to_q = Linear(size, size)
        self.to_k = Linear(size, size)
        self.to_v = Linear(size, size)
        self.add_q_proj = Linear(size, size)
        self.add_k_proj = Linear(size, size)
        self.add_v_proj = Linear(size, size)
        self.norm_q = RMSNorm(self.head_dim, _EPS)
        self.norm_k = RMSNorm(self.head_dim, _EPS)
        self.norm_added_q = RMSNorm(self.head_dim, _EPS)
        self.norm_added_k = RMSNorm(self.head_dim, _EPS)
        self.to_out = nn.ModuleList([Linear(size, size)])
        self.to_add_out: Linear | None = Linear(size, size)
        self.image_qkv: PackedLinear | None = None
        self.text_qkv: PackedLinear | None = None

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, rotary: JointRotary, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the updates of image and text, (batch, tokens, channels) each, before their gates."""
        query, key, value = self._heads(image, self.image_qkv, (self.to_q, self.to_k, self.to_v))
        query = normed_rotary(query, self.norm_q, rotary.image)
        key = normed_rotary(key, self.norm_k, rotary.image)
        *text_query, text_key, text_value = self._heads(text, self.text_qkv, self._text_projections())
        text_key = normed_rotary(text_key, self.norm_added_k, rotary.text)
        if text_query:
            query = torch.cat((normed_rotary(text_query[0], self.norm_added_q, rotary.text), query), dim=1)
        joint_key, joint_value = torch.cat((text_key, key), dim=1), torch.cat((text_value, value), dim=1)
        attended = self.attention.attend(query, joint_key, joint_value, mask=mask).flatten(2)
        if self.to_add_out is None or not text_query:
            return self.to_out[0](attended), None
        num_text_tokens = text.shape[1]
        return self.to_out[0](attended[:, num_text_tokens:]), self.to_add_out(attended[:, :num_text_tokens])

    def prepare(self) -> None:
        """Pack the projections of each stream into one; without a text output, drop what made it."""
        self.image_qkv = pack_linears(self, ("to_q", "to_k", "to_v"), "image_qkv")
        if not self.has_text_output:
            self.to_add_out = None
            self.text_qkv = pack_linears(self, ("add_k_proj", "add_v_proj"), "text_qkv")
            del self.add_q_proj, self.norm_added_q
        else:
            self.text_qkv = pack_linears(self, ("add_q_proj", "add_k_proj", "add_v_proj"), "text_qkv")

    def _text_projections(self) -> Sequence[Linear]:
        projections = (self.add_k_proj, self.add_v_proj)
        return (self.add_q_proj, *projections) if self.has_text_output else projections

    def _heads(
        self, tokens: torch.Tensor, packed: PackedLinear | None, single: Sequence[Linear]
    ) -> tuple[torch.Tensor, ...]:
        """Return the projections of ``tokens`` as (batch, tokens, heads, head_dim) each."""
        projected = packed.split(tokens) if packed is not None else [linear(tokens) for linear in single]
        return tuple(each.view(*each.shape[:2], -1, self.head_dim) for each in projected)
