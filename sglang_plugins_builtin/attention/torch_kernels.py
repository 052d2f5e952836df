"""Attention with what torch brings: its scaled dot product, a blocked form for bf16 on a CPU, and cuDNN's kernel.

Inside, tensors are (batch, heads, tokens, head_dim), as torch's kernels take them.
"""

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from sglang_core import AttentionCapabilities, cpu_features

from .calls import KernelAttention, refuse_uneven_causal
from .reference import additive, causal_mask, plain_attention

#: From so many tokens on the blocked form is the faster one in bf16 on a CPU without matrix units. Measured on two
#: Zen 4 cores: no gain at 780 tokens, 1.10 to 1.16 of a denoising step at 3120. With AMX torch's own kernel is 3.2
#: times as fast as this one, at 1560 to 4160 tokens.
_BLOCKED_FROM = 1536
_BLOCK_ROWS = 1024
#: Scores of a block in bytes: larger ones leave the caches, and take memory.
_BLOCK_BYTES = 96 * 2**20
#: The efficient kernel of CUDA wants rows of a bias to start at such multiples.
_BIAS_ALIGNMENT = 8


class TorchSdpa:
    """``torch.nn.functional.scaled_dot_product_attention``, on every device."""

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """Return softmax(query key^T * scale + mask) value."""
        if is_causal:
            refuse_uneven_causal(query, key)
        if mask is None and not is_causal and prefers_blocks(query, key):
            return blocked_attention(query, key, value, scale)
        mask, is_causal = _one_mask(query, mask, is_causal)
        out = scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return out.transpose(1, 2)

    def attend_with_lse(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None = None,
        scale: float | None = None,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the result, and the log-sum-exp as float32 (batch, query tokens, heads)."""
        if is_causal:
            refuse_uneven_causal(query, key)
        kind = query.device.type
        if kind == "cpu" and query.dtype != torch.float64:
            return _cpu_with_lse(query, key, value, mask, scale, is_causal)
        if kind == "cuda":
            return _cuda_with_lse(query, key, value, mask, scale, is_causal)
        return plain_attention(query, key, value, mask, scale, is_causal)


def prefers_blocks(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Say whether unmasked attention of these is faster in blocks of matrix products."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and not _has_matrix_units()
        and query.shape[2] == key.shape[2]
        and min(query.shape[1], key.shape[1]) >= _BLOCKED_FROM
    )


def _has_matrix_units() -> bool:
    """Say whether torch's kernel can multiply in AMX."""
    return "amx_bf16" in cpu_features()


def blocked_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
    """Return attention as matrix products over blocks of query rows, which oneDNN multiplies in bf16.

    Without matrix units torch's own kernel computes bf16 attention at the speed of fp32: 71 GFLOP/s and thread where
    this reaches 114 to 129. Scores are rounded to bf16: against float64 the error is 4.7e-3 in place of 2.3e-3.
    """
    batch, tokens, heads, head_dim = query.shape
    scale = head_dim**-0.5 if scale is None else scale
    q, k, v = (tensor.transpose(1, 2).reshape(batch * heads, -1, head_dim) for tensor in (query, key, value))
    k = k.transpose(1, 2)
    row_bytes = k.shape[-1] * query.element_size()
    rows = max(1, min(_BLOCK_ROWS, tokens, _BLOCK_BYTES // row_bytes))
    at_once = max(1, min(batch * heads, _BLOCK_BYTES // (rows * row_bytes)))
    out = torch.empty_like(q)
    for head in range(0, batch * heads, at_once):
        some = slice(head, head + at_once)
        for row in range(0, tokens, rows):
            block = slice(row, row + rows)
            scores = torch.baddbmm(q.new_empty(()), q[some, block], k[some], beta=0, alpha=scale)
            out[some, block] = torch.bmm(scores.softmax(dim=-1), v[some])
    return out.view(batch, heads, tokens, head_dim).transpose(1, 2)


def _one_mask(query: torch.Tensor, mask: torch.Tensor | None, is_causal: bool) -> tuple[torch.Tensor | None, bool]:
    """Return one mask for both conditions, of four dimensions, in a dtype that torch's kernels take."""
    if mask is None:
        return None, is_causal
    if is_causal:
        causal = causal_mask(query.shape[1], query.device)
        mask = mask & causal if mask.dtype == torch.bool else mask + additive(causal, mask.dtype)
    if mask.dtype != torch.bool and query.device.type != "cpu":  # a CPU adds float32 to the scores of any dtype
        mask = mask.to(query.dtype)
    return mask.reshape((1,) * (4 - mask.dim()) + tuple(mask.shape)), False


def _expanded(query: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return keys or values as (batch, heads, tokens, head_dim), repeated for each group of query heads."""
    groups = query.shape[2] // tensor.shape[2]
    tensor = tensor.transpose(1, 2)
    return tensor.repeat_interleave(groups, dim=1) if groups > 1 else tensor


def _cpu_with_lse(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    is_causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    mask, is_causal = _one_mask(query, mask, is_causal)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query.transpose(1, 2),
        _expanded(query, key),
        _expanded(query, value),
        0.0,
        is_causal,
        attn_mask=None if mask is None else additive(mask, torch.float32),
        scale=scale,
    )
    return out.transpose(1, 2), lse.transpose(1, 2).float()


def _cuda_with_lse(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    is_causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v = query.transpose(1, 2), _expanded(query, key), _expanded(query, value)
    head_dim = query.shape[-1]
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if head_dim % 8 or (not is_half and query.dtype != torch.float32):
        return plain_attention(query, key, value, mask, scale, is_causal)
    has_flash = torch.version.hip is None and torch.cuda.get_device_capability(query.device) >= (8, 0)
    if mask is None and is_half and head_dim <= 256 and has_flash:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False, scale=scale)[:2]
        return out.transpose(1, 2), lse[..., : query.shape[1]].transpose(1, 2).float()
    mask, is_causal = _one_mask(query, mask, is_causal)
    bias = None if mask is None else aligned_bias(mask, query, key)
    out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, 0.0, is_causal, scale=scale)[
        :2
    ]
    return out.transpose(1, 2), lse[..., : query.shape[1]].transpose(1, 2).float()  # its rows are padded


def aligned_bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return a mask as bias (batch, heads, query tokens, key tokens) whose rows start at aligned addresses."""
    bias = additive(mask, query.dtype)
    bias = bias.expand(*bias.shape[:-1], key.shape[1])
    bias = pad(bias, (0, -key.shape[1] % _BIAS_ALIGNMENT))[..., : key.shape[1]]
    return bias.expand(query.shape[0], query.shape[2], query.shape[1], key.shape[1])


def cudnn_attention(capabilities: AttentionCapabilities) -> KernelAttention:
    """Return attention restricted to the kernel of cuDNN."""
    return KernelAttention("torch_cudnn_sdpa", capabilities, _cudnn_kernel)


def _cudnn_kernel(
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
    mask, is_causal = _one_mask(query, mask, is_causal)
    bias = None if mask is None else aligned_bias(mask, query, key)
    out, lse = torch.ops.aten._scaled_dot_product_cudnn_attention(
        query.transpose(1, 2),
        _expanded(query, key),
        _expanded(query, value),
        bias,
        wants_lse,
        0.0,
        is_causal,
        False,
        scale=scale,
    )[:2]
    if not wants_lse:
        return out.transpose(1, 2), None
    lse = lse.squeeze(-1) if lse.dim() == 4 else lse
    return out.transpose(1, 2), lse.transpose(1, 2)
