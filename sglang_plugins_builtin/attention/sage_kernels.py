"""SageAttention: 8-bit scores (``sage_attn``), and 4-bit products on Blackwell (``sage_attn_3``). Both are lossy."""

import torch

from sglang_core import AttentionCapabilities

from .calls import KernelAttention, refuse_uneven_causal


def sage_attention(capabilities: AttentionCapabilities) -> KernelAttention:
    """Return attention by the kernel that ``sageattention`` picks for the GPU."""
    from sageattention import sageattn

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
        is_causal: bool,
        wants_lse: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if is_causal:
            refuse_uneven_causal(query, key)
        result = sageattn(
            query, key, value, tensor_layout="NHD", is_causal=is_causal, sm_scale=scale, return_lse=wants_lse
        )
        if not wants_lse:
            return result, None
        return result[0], result[1].transpose(1, 2)  # (batch, heads, tokens)

    return KernelAttention("sage_attn", capabilities, kernel)


def sage_attention_3(capabilities: AttentionCapabilities) -> KernelAttention:
    """Return attention by the FP4 kernel."""
    from sageattn3 import sageattn3_blackwell

    def kernel(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
        is_causal: bool,
        wants_lse: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if is_causal:
            refuse_uneven_causal(query, key)
        usual = query.shape[-1] ** -0.5
        q = query if scale == usual else query * (scale / usual)  # the kernel knows the usual scale only
        q, v = q.transpose(1, 2), value.transpose(1, 2)
        k = key.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # it takes the mean off in place
        return sageattn3_blackwell(q, k, v, is_causal=is_causal).transpose(1, 2), None

    return KernelAttention("sage_attn_3", capabilities, kernel)
