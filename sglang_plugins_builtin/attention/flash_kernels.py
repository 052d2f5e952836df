"""Calls of FlashAttention 2, 3 and 4, which all take (batch, tokens, heads, head_dim)."""

import importlib
from typing import Any

import torch

from sglang_core import UnavailableError

from .calls import KernelAttention, refuse_uneven_causal
from .flash_versions import FlashVersion

#: How each version is asked for the log-sum-exp.
_LSE_FLAGS = {"fa2": "return_attn_probs", "fa3": "return_attn_probs", "fa4": "return_lse"}


def flash_attention(name: str, version: FlashVersion, module: str) -> KernelAttention:
    """Return attention by the installed module of one version.

    :param name: the backend's name, for messages.
    :raises UnavailableError: if the module does not import.
    """
    try:
        compute = importlib.import_module(module).flash_attn_func
    except (
        ImportError,
        OSError,
        RuntimeError,
        AttributeError,
    ) as error:  # compiled for another torch, a missing library
        reason = " ".join(str(error).split())
        raise UnavailableError(
            f"attention backend {name}: {module} does not import: {reason}", version.remedy
        ) from error
    flag = _LSE_FLAGS[version.name]

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
        further = {flag: True} if wants_lse else {}
        result: Any = compute(query, key, value, softmax_scale=scale, causal=is_causal, **further)
        out = result[0] if isinstance(result, tuple) else result
        if not wants_lse:
            return out, None
        return out, result[1].transpose(1, 2)  # (batch, heads, tokens)

    return KernelAttention(name, version.capabilities, kernel)
