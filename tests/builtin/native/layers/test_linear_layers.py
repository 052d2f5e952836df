"""Linear layers, alone, packed, and with a kernel of another."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sglang_plugins_builtin.native.layers import Activation, FeedForward, Linear, activate, pack_linears


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


class Owner(nn.Module):
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (Linear(6, size, bias=bias) for size in (8, 4, 2))


@pytest.mark.parametrize("bias", [True, False])
def test_packed_layers_give_what_each_layer_gives(bias: bool) -> None:
    owner = filled(Owner(bias=bias))
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    alone = [owner.get_submodule(name)(x) for name in ("to_q", "to_k", "to_v")]

    packed = pack_linears(owner, ("to_q", "to_k", "to_v"), "qkv")

    for expected, found in zip(alone, packed.split(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_packing_frees_the_single_layers_and_registers_the_packed_one() -> None:
    owner = filled(Owner())

    pack_linears(owner, ("to_q", "to_k", "to_v"), "qkv")

    assert set(owner.state_dict()) == {"qkv.weight", "qkv.bias"}
    assert owner.to_q is None


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh")),
        ("gelu", functional.gelu),
        ("silu", functional.silu),
        (None, lambda x: x),
    ],
)
def test_activation_by_its_name_follows_the_layer(name: Activation | None, function) -> None:
    layer = filled(Linear(3, 4))
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))

    assert torch.equal(layer(x, name), function(layer(x)))


def test_kernel_replaces_the_arithmetic_and_is_told_the_activation() -> None:
    layer = Linear(3, 4)
    layer.kernel = lambda x, activation: activate(x.new_full((*x.shape[:-1], 4), -1.0), activation)

    assert layer(torch.zeros(2, 3)).tolist() == [[-1.0] * 4] * 2
    assert torch.equal(layer(torch.zeros(1, 3), "silu"), functional.silu(torch.full((1, 4), -1.0)))


def test_feed_forward_equals_that_of_diffusers_under_its_names() -> None:
    from diffusers.models.attention import FeedForward as Vanilla

    vanilla = filled(Vanilla(dim=6, dim_out=6, activation_fn="gelu-approximate"))
    ours = FeedForward(6, 24)
    ours.load_state_dict(vanilla.state_dict())
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))

    torch.testing.assert_close(ours(x), vanilla(x), rtol=1e-6, atol=1e-6)
