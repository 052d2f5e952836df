"""Weights of a loaded module by their names in the model's files, however they are packed by now."""

import torch
from attrs import frozen
from torch import nn

from sglang_core import UnavailableError

from ..layers import Linear, PackedLinear
from ..layers.linear import ChangeableKernel


@frozen(eq=False)
class WeightPlace:
    """Where a weight is: all of a layer's, or some rows of it where layers are packed into one."""

    layer: nn.Module
    rows: slice | None = None

    def read(self) -> torch.Tensor:
        """Return the weight; what is written later does not change it."""
        weight = _plain_weight(self.layer)
        return weight if self.rows is None else weight[self.rows].clone()

    def write(self, value: torch.Tensor) -> None:
        """Let the layer compute with other values, in the form in which it was packed for speed if it was."""
        if self.rows is not None:
            whole = _plain_weight(self.layer).clone()
            whole[self.rows] = value
            value = whole
        if isinstance(self.layer, Linear) and isinstance(self.layer.kernel, ChangeableKernel):
            self.layer.kernel = self.layer.kernel.changed(value)
        weight = _weight_of(self.layer)
        if weight.numel():  # else the kernel has dropped it
            # The parameter stays: whatever brings it to a device knows it by its identity.
            weight.data = value.pin_memory() if weight.device.type == "cpu" and weight.is_pinned() else value


def find_weight(module: nn.Module, name: str) -> WeightPlace | None:
    """Return where a stored weight (``blocks.0.attn1.to_q.weight``) is, ``None`` if the module has dropped it.

    :raises UnavailableError: if its layer computes with something else than its weight.
    """
    path, _, leaf = name.rpartition(".")
    if leaf != "weight":
        return None
    owner_path, _, layer_name = path.rpartition(".")
    try:
        owner = module.get_submodule(owner_path)
    except AttributeError:
        return None
    layer = getattr(owner, layer_name, None) if layer_name not in owner._modules else owner._modules[layer_name]
    if isinstance(layer, nn.Module):
        _refuse_foreign_kernel(layer, name)
        return WeightPlace(layer)
    for child in owner.children():
        if isinstance(child, PackedLinear) and layer_name in child.names:
            _refuse_foreign_kernel(child, name)
            index = child.names.index(layer_name)
            start = sum(child.sizes[:index])
            return WeightPlace(child, slice(start, start + child.sizes[index]))
    return None


def _refuse_foreign_kernel(layer: nn.Module, name: str) -> None:
    kernel = layer.kernel if isinstance(layer, Linear) else None
    if kernel is not None and not isinstance(kernel, ChangeableKernel):
        problem = f"the weight {name} can not be changed: its layer computes with {type(kernel).__name__}"
        raise UnavailableError(problem, "leave out what replaces the layers, for example quantisation")


def _plain_weight(layer: nn.Module) -> torch.Tensor:
    if isinstance(layer, Linear) and isinstance(layer.kernel, ChangeableKernel):
        return layer.kernel.plain_weight()
    return _weight_of(layer).data


def _weight_of(layer: nn.Module) -> nn.Parameter:
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight
