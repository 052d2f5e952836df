"""The fastest way of a CPU to compute the linear layers of a module with bfloat16 weights."""

import torch
from torch import nn

from . import onednn, widened
from .linear import Linear


def pack_module(module: nn.Module) -> int:
    """Give every bfloat16 linear layer on the CPU below ``module`` a fast kernel; return how many got one.

    The kernels take the weights over, one layer after the other: call this after everything that finds weights by name.
    """
    is_widened = widened.is_faster()
    if not is_widened and not onednn.is_supported():
        return 0
    layers = [layer for layer in module.modules() if isinstance(layer, Linear) and _is_plain(layer)]
    for layer in layers:
        if is_widened:
            layer.kernel = widened.WidenedKernel(layer.weight, layer.bias)
        else:
            layer.kernel = onednn.OneDnnKernel(layer.weight, layer.bias)
        layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)
    return len(layers)


def _is_plain(layer: Linear) -> bool:
    return layer.kernel is None and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.bfloat16
