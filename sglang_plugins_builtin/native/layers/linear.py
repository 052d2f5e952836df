"""Linear layers: created empty, packed after loading, with an exchangeable kernel."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from .mapped_pages import MappedFiles

#: What may be applied to the result of a linear layer: ``gelu_tanh`` is GELU in its tanh form.
Activation = Literal["gelu_tanh", "gelu", "silu"]


class LinearKernel(Protocol):
    """Another way to compute one linear layer; it holds its own form of the weights."""

    def __call__(self, x: torch.Tensor, activation: Activation | None) -> torch.Tensor:
        """Return activation(x W^T + b) for ``x`` of shape (..., in_features)."""


@runtime_checkable
class ChangeableKernel(Protocol):
    """What a :class:`LinearKernel` has as well if its layer may get other weights."""

    def plain_weight(self) -> torch.Tensor:
        """Return the weight (out_features, in_features) that it was made of, value for value."""

    def changed(self, weight: torch.Tensor) -> LinearKernel:
        """Return the kernel for another weight of the same shape and dtype, and the same bias."""


class Linear(nn.Module):
    """x W^T + b with ``weight`` (out_features, in_features) and ``bias`` (out_features).

    Setting ``kernel`` replaces the arithmetic, as packing for a device or quantisation does; the owner of the kernel
    may then drop ``weight``. ``None`` computes with ``weight`` as it is.
    """

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False)
        else:
            self.register_parameter("bias", None)
        self.kernel: LinearKernel | None = None

    def forward(self, x: torch.Tensor, activation: Activation | None = None) -> torch.Tensor:
        """Return (..., out_features) for ``x`` (..., in_features), in the dtype of ``x``."""
        if self.kernel is not None:
            return self.kernel(x, activation)
        return activate(functional.linear(x, self.weight, self.bias), activation)


class PackedLinear(Linear):
    """Several linear layers of the same input computed as one; ``sizes`` are their output features.

    ``names`` are those that the layers had in their owner, in the order of their rows.
    """

    def __init__(self, in_features: int, sizes: Sequence[int], *, bias: bool = True) -> None:
        super().__init__(in_features, sum(sizes), bias=bias)
        self.sizes = tuple(sizes)
        self.names: tuple[str, ...] = ()

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the result of each packed layer: views of one tensor, not contiguous."""
        return tuple(torch.split_with_sizes(self(x), self.sizes, dim=-1))


def pack_linears(owner: nn.Module, names: Sequence[str], into: str) -> PackedLinear:
    """Replace the linear layers ``names`` of ``owner`` by one under the name ``into``, and return it.

    Call it after loading and after everything that changes weights by name: the single layers become ``None``. Each
    is freed as soon as it is copied.
    """
    parts = [owner.get_submodule(name) for name in names]
    linears = [part for part in parts if isinstance(part, Linear)]
    assert len(linears) == len(parts)
    biases = [linear.bias for linear in linears if linear.bias is not None]
    assert len(biases) in {0, len(linears)}
    packed = PackedLinear.__new__(PackedLinear)  # without the empty weight that __init__ would allocate
    nn.Module.__init__(packed)
    packed.in_features = linears[0].in_features
    packed.sizes = tuple(linear.out_features for linear in linears)
    packed.names = tuple(names)
    packed.out_features = sum(packed.sizes)
    packed.weight = nn.Parameter(torch.cat(tuple(linear.weight for linear in linears)), requires_grad=False)
    packed.bias = nn.Parameter(torch.cat(tuple(biases)), requires_grad=False) if biases else None
    packed.kernel = None
    files = MappedFiles()
    for name, linear in zip(names, linears, strict=True):
        files.give_back(linear.weight)
        setattr(owner, name, None)
    setattr(owner, into, packed)
    return packed


def activate(x: torch.Tensor, activation: Activation | None) -> torch.Tensor:
    """Apply an activation by its name; ``None`` returns ``x``."""
    if activation is None:
        return x
    if activation == "silu":
        return functional.silu(x)
    return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
