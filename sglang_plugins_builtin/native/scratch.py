"""What kernels take for themselves while they compute, as far as it is much. Without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import cpu_features

if TYPE_CHECKING:
    from sglang_core import MemoryQuery

#: As in the plugin ``attention``: torch_sdpa computes bf16 on a CPU in blocks from so many tokens on, a block of
#: scores takes at most so much, and its softmax as much again. A CPU with AMX does without.
_BLOCKED_FROM = 1536
_BLOCK_ROWS = 1024
_BLOCK_BYTES = 96 * 2**20


def blocked_attention_bytes(query: MemoryQuery, component: str, tokens: int, heads: int) -> int:
    """Return what two blocks of scores take; 0 where attention is not computed in blocks."""
    if query.device != "cpu" or query.precisions[component] != "bf16" or tokens < _BLOCKED_FROM:
        return 0
    if "amx_bf16" in cpu_features():
        return 0
    block = min(_BLOCK_ROWS, tokens) * tokens * 2
    return 2 * min(max(_BLOCK_BYTES, block), heads * block)
