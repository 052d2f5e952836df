"""The two-layer perceptron of diffusion transformers, under the names that diffusers stores it by."""

import torch
from torch import nn

from .linear import Activation, Linear


class FeedForward(nn.Module):
    """Linear, activation, linear: ``net.0.proj`` (inner, size) and ``net.2`` (size, inner)."""

    def __init__(self, size: int, inner_size: int, activation: Activation = "gelu_tanh") -> None:
        super().__init__()
        self.activation: Activation = activation
        # the stored names count a dropout as number 1
        self.net = nn.ModuleDict(
            {"0": nn.ModuleDict({"proj": Linear(size, inner_size)}), "2": Linear(inner_size, size)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., size) for ``x`` (..., size)."""
        inner = self.net.get_submodule("0.proj")(x, self.activation)
        outer: torch.Tensor = self.net["2"](inner)
        return outer
