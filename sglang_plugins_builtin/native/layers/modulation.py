"""Adaptive layer norm: scales, shifts and gates that depend on the timestep alone.

All samples of a batch share the timestep, so a modulation is a vector over the channels; where tokens have timesteps of
their own it is a table (tokens, channels).
"""

import torch
from attrs import frozen
from torch.nn import functional

from .norms import affine_layer_norm


@frozen(eq=False)
class Modulation:
    """What one timestep does to one normalised stream: each of shape (channels,) or (tokens, channels)."""

    shift: torch.Tensor
    #: Already with the 1 added: what the normalised tokens are multiplied by.
    scale: torch.Tensor
    gate: torch.Tensor | None = None


def modulated_norm(x: torch.Tensor, modulation: Modulation, eps: float = 1e-6) -> torch.Tensor:
    """Return the layer norm of ``x`` (batch, tokens, channels) times scale plus shift, in the dtype of ``x``.

    A modulation in float32 keeps its precision although ``x`` has less.
    """
    if modulation.scale.dim() == 1:
        return affine_layer_norm(x, modulation.scale, modulation.shift, eps)
    channels = x.shape[-1:]
    if modulation.scale.dtype != x.dtype:
        wide = functional.layer_norm(x.float(), channels, eps=eps)
        return torch.addcmul(modulation.shift.float(), wide, modulation.scale.float()).to(x.dtype)
    return torch.addcmul(modulation.shift, functional.layer_norm(x, channels, eps=eps), modulation.scale)


def gated_add(residual: torch.Tensor, gate: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Return ``residual + gate * x`` (batch, tokens, channels) in the dtype of ``residual``; no gate means 1."""
    if gate is None:
        return residual + x
    if gate.dtype == residual.dtype:
        return torch.addcmul(residual, gate, x)
    return torch.addcmul(residual.float(), gate.float(), x.float()).to(residual.dtype)
