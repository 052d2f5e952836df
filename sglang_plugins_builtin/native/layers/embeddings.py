"""Timesteps as vectors."""

import math

import torch
from torch import nn

from .linear import Linear


def sinusoidal_embedding(timesteps: torch.Tensor, size: int, *, scale: float = 1.0) -> torch.Tensor:
    """Return cosines, then sines, of ``timesteps`` (n,) times ``size`` / 2 falling frequencies: float32 (n, size).

    :param size: even.
    :param scale: what the products of timestep and frequency are multiplied by.
    """
    half = size // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = scale * (timesteps[:, None].float() * torch.exp(exponent)[None, :])
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    """Linear, SiLU, linear: ``linear_1`` (size, in_features) and ``linear_2`` (size, size)."""

    def __init__(self, in_features: int, size: int) -> None:
        super().__init__()
        self.linear_1 = Linear(in_features, size)
        self.linear_2 = Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, size) for ``x`` (n, in_features), in the dtype of ``x``."""
        hidden: torch.Tensor = self.linear_2(self.linear_1(x, "silu"))
        return hidden
