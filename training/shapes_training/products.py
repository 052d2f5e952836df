"""Matrix products and convolutions in bfloat16, on processors with matrix units for it."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch import nn


def multiplies_bf16_fast() -> bool:
    """Tell whether the processor has matrix units for bfloat16 (Intel AMX): several times the speed of float32.

    Without them, bfloat16 is no faster than float32, and less exact.
    """
    return bool(torch.cpu._is_amx_tile_supported())  # the public name for it is missing


def use_bf16_products(module: nn.Module) -> None:
    """Let all linear layers and convolutions multiply in bfloat16, forward and backward, in place.

    Weights, sums between layers and everything else stay float32. Nothing changes on
    processors that gain nothing. Compile afterwards.
    """
    if not multiplies_bf16_fast():
        return
    for part in module.modules():
        if (forward := _forward_of(part)) is not None:
            cast(Any, part).forward = MethodType(forward, part)


def _forward_of(part: nn.Module) -> Callable[..., torch.Tensor] | None:
    if isinstance(part, nn.Linear):
        return _linear
    if isinstance(part, nn.Conv2d):
        return _convolve_frames
    # diffusers' causal convolutions: they pad by hand, and keep no padding for the convolution itself.
    return _convolve_clip if isinstance(part, nn.Conv3d) and hasattr(part, "_padding") else None


def _linear(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return _with_bias(functional.linear(x.bfloat16(), self.weight.bfloat16()).float(), self.bias, dim=-1)


def _convolve_frames(self: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    product = functional.conv2d(x.bfloat16(), self.weight.bfloat16(), None, self.stride, self.padding)
    return _with_bias(product.float(), self.bias, dim=1)


def _convolve_clip(self: Any, x: torch.Tensor, cache_x: None = None) -> torch.Tensor:
    # x: (batch, channels, frames, height, width)
    assert cache_x is None, "only whole clips"
    padded = functional.pad(x.bfloat16(), list(self._padding))
    return _with_bias(functional.conv3d(padded, self.weight.bfloat16(), None, self.stride).float(), self.bias, dim=1)


def _with_bias(product: torch.Tensor, bias: torch.Tensor | None, *, dim: int) -> torch.Tensor:
    if bias is None:
        return product
    return product + bias if dim == -1 else product + bias.view(-1, *[1] * (product.ndim - 2))
