"""Linear layers of a CPU in bfloat16: weights in oneDNN's own layout, with the activation in the same pass.

oneDNN copies a plain weight into blocks of its own at every call. Done once, a block of Wan is 1.07 to 1.10 times as
fast, one of Qwen-Image 1.14 to 1.18, and the arithmetic is the same.
"""

import torch

from .linear import Activation

#: How oneDNN calls an activation: its name and its algorithm.
_NAMES: dict[Activation | None, tuple[str, str]] = {
    None: ("none", ""),
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "silu": ("swish", ""),
}


class OneDnnKernel:
    """One linear layer with its weight in oneDNN's layout; ``weight`` is bfloat16 (out_features, in_features)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = None if bias is None else bias.detach()

    def plain_weight(self) -> torch.Tensor:
        """Return a copy of the weight, bfloat16 (out_features, in_features): the values it was made of."""
        plain: torch.Tensor = self._weight.to_dense()
        return plain

    def changed(self, weight: torch.Tensor) -> "OneDnnKernel":
        """Return the kernel for another weight."""
        return OneDnnKernel(weight, self._bias)

    def __call__(self, x: torch.Tensor, activation: Activation | None) -> torch.Tensor:
        """Return activation(x W^T + b) for ``x`` of shape (..., in_features)."""
        name, algorithm = _NAMES[activation]
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], algorithm)
        return result


def is_supported() -> bool:
    """Say whether oneDNN computes in bfloat16 on this processor."""
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())
