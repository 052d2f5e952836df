"""Linear layers with bfloat16 weights that a CPU multiplies in float32, a block of the weight at a time.

Processors without matrix units multiply float32 faster than bfloat16: a Sapphire Rapids whose virtual machine hides
AMX makes 210 to 260 GFLOP/s of the one and 135 to 165 of the other, on two threads and at the sizes of Wan. Each
product of two bfloat16 numbers is exact in float32, so that nothing is lost; the result is rounded once.
"""

from pathlib import Path

import torch
from torch.nn import functional

from .linear import Activation, activate

#: Values of the weight, and of the input, that are widened at once: 6 and 8 MB, and what is made of them stays in the
#: processor's cache while it is used.
_WEIGHT_VALUES, _INPUT_VALUES = 3 << 19, 2 << 20
_MIN_ROWS = 512
#: With fewer tokens the weight is read hardly more often than it is multiplied: half the bytes are twice as fast.
_FEW_TOKENS = 32


class WidenedKernel:
    """One linear layer; ``weight`` is bfloat16 (out_features, in_features)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = weight.detach()
        self._bias = None if bias is None else bias.detach()
        self._num_rows = max(_MIN_ROWS, _WEIGHT_VALUES // weight.shape[1])
        self._num_tokens = max(1, _INPUT_VALUES // weight.shape[1])

    def plain_weight(self) -> torch.Tensor:
        """Return the weight, bfloat16 (out_features, in_features)."""
        return self._weight

    def changed(self, weight: torch.Tensor) -> "WidenedKernel":
        """Return the kernel for another weight."""
        return WidenedKernel(weight, self._bias)

    def __call__(self, x: torch.Tensor, activation: Activation | None) -> torch.Tensor:
        """Return activation(x W^T + b) for bfloat16 ``x`` of shape (..., in_features)."""
        tokens = x.reshape(-1, x.shape[-1])
        if len(tokens) < _FEW_TOKENS:
            return activate(functional.linear(x, self._weight, self._bias), activation)
        result = torch.empty(*x.shape[:-1], len(self._weight), dtype=x.dtype)
        out = result.view(-1, len(self._weight))
        for start in range(0, len(self._weight), self._num_rows):
            rows = slice(start, start + self._num_rows)
            weight = self._weight[rows].float()
            bias = None if self._bias is None else self._bias[rows].float()
            parts = zip(torch.split(tokens, self._num_tokens), torch.split(out, self._num_tokens), strict=True)
            for part, target in parts:
                target[:, rows] = activate(functional.linear(part.float(), weight, bias), activation)
        return result


def is_faster() -> bool:
    """Say whether this processor multiplies float32 faster than bfloat16.

    Known of Linux on x86: all without AMX, but for AMD's that have AVX512-BF16. By what the processor is, not by a
    measurement: the same machine has to compute the same picture every time.
    """
    facts = _processor()
    has_bf16 = "avx512_bf16" in facts and "authenticamd" in facts
    return "avx2" in facts and "amx_bf16" not in facts and not has_bf16


def _processor() -> frozenset[str]:
    """Return the vendor and the features of the first processor, in lower case; empty where they are not known."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    first = text.partition("\n\n")[0].lower()
    return frozenset(word for line in first.splitlines() for word in line.partition(":")[2].split())
