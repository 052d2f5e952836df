"""The fastest way of a CPU to compute the linear layers of a module with bfloat16 weights."""

import torch
from torch import nn

from . import onednn, widened
from .linear import Linear
from .mapped_pages import MappedFiles


def pack_module(module: nn.Module) -> int:
    """Give every bfloat16 linear layer on the CPU below ``module`` a fast kernel; return how many got one.

    The kernels take the weights over, one layer after the other: call this after everything that finds weights by name.
    A weight that a kernel holds a copy of leaves memory at once, so that both are never there as a whole.
    """
    is_widened = widened.is_faster()
    if not is_widened and not onednn.is_supported():
        return 0
    layers = [layer for layer in module.modules() if isinstance(layer, Linear) and _is_plain(layer)]
    files = MappedFiles()
    for layer in layers:
        if is_widened:
            layer.kernel = widened.WidenedKernel(layer.weight, layer.bias)
        else:
            layer.kernel = onednn.OneDnnKernel(layer.weight, layer.bias)
            files.give_back(layer.weight)
        layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)
    return len(layers)


def _is_plain(layer: Linear) -> bool:
    return layer.kernel is None and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.bfloat16
