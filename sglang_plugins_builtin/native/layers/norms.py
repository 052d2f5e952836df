"""Normalisation over the last dimension."""

import torch
from torch import nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight, computed in float32 and rounded once.

    One layer serves a single head (``size`` = head_dim) as well as all heads at once.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.size = size
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` (..., size) normalised, in its dtype."""
        if x.is_cuda and x.dtype == self.weight.dtype:
            return functional.rms_norm(x, (self.size,), self.weight, self.eps)
        # torch's own form is several times slower than this on a CPU in bfloat16
        return widened_rms_norm(x, self.weight, self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation with ``weight`` and ``bias``, computed in float32 and rounded once."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.size = size
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(size), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` (..., size) normalised, in its dtype."""
        return affine_layer_norm(x, self.weight, self.bias, self.eps)


def affine_layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """Return the layer norm of ``x`` (..., size) times ``weight`` (size,) plus ``bias`` (size,), in one kernel.

    ``weight`` and ``bias`` may be float32 while ``x`` has less precision.
    """
    is_wider_on_cpu = x.device.type == "cpu" and weight.dtype == torch.float32  # only there kernels mix precisions
    if weight.dtype != x.dtype and not is_wider_on_cpu:
        return functional.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)
    return functional.layer_norm(x, weight.shape, weight, bias, eps)


def widened_rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x / sqrt(mean(x²) + eps) * weight over the last dimension, as a new float32 tensor."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    mean_square = length.square_().div_(x.shape[-1])
    # in place where nobody else holds the tensor: a new one costs more than the arithmetic
    return (x * weight.float()).mul_(mean_square.add_(eps).rsqrt_())
