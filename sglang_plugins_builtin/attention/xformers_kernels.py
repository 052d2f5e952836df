"""Memory-efficient attention of xformers, which takes (batch, tokens, heads, head_dim)."""

from typing import Any

import torch

from sglang_core import AttentionCapabilities

from .calls import KernelAttention, refuse_uneven_causal
from .reference import additive, causal_mask
from .torch_kernels import aligned_bias


def xformers_attention(capabilities: AttentionCapabilities) -> KernelAttention:
    """Return attention by the operator that xformers picks."""
    from xformers import ops

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
        is_causal: bool,
        wants_lse: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        bias: Any = None
        if is_causal:
            refuse_uneven_causal(query, key)
        if mask is not None:
            mask = additive(mask, query.dtype)
            if is_causal:
                mask = mask + additive(causal_mask(query.shape[1], query.device), query.dtype)
            bias = aligned_bias(mask, query, key)
        elif is_causal:
            bias = ops.LowerTriangularMask()
        groups = query.shape[2] // key.shape[2]
        if groups > 1:
            key, value = (tensor.repeat_interleave(groups, dim=2) for tensor in (key, value))
        if not wants_lse:
            return ops.memory_efficient_attention(query, key, value, bias, 0.0, scale), None
        out, lse = ops.fmha.memory_efficient_attention_forward_requires_grad(query, key, value, bias, 0.0, scale)
        return out, lse[..., : query.shape[1]].transpose(1, 2)  # (batch, heads, tokens), rows may be padded

    return KernelAttention("xformers", capabilities, kernel)
