from __future__ import annotations

import pytest
import torch
from torch import nn

from sglang_plugins_builtin.native.engine import Residency


class _Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def _pointers(module: nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in module.parameters()]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.linspace(-1, 1, 8).view(2, 4)


def test_moved_component_computes_the_same_and_goes_home(x: torch.Tensor) -> None:
    module = _Stack().requires_grad_(False)
    expected, home = module(x), _pointers(module)
    residency = Residency(torch.device("cpu"))
    residency.place("transformer", module, "component-offload")

    residency.use("transformer")
    away = _pointers(module)
    result = module(x)
    residency.release()

    assert torch.equal(result, expected)
    assert set(away).isdisjoint(home)
    assert _pointers(module) == home


def test_component_that_comes_sends_the_others_home(x: torch.Tensor) -> None:
    residency = Residency(torch.device("cpu"))
    first, second = _Stack(), _Stack()
    residency.place("transformer", first, "component-offload")
    residency.place("transformer_2", second, "component-offload")
    home = _pointers(first)

    residency.use("transformer")
    residency.use("transformer")
    residency.use("transformer_2")

    assert _pointers(first) == home


def test_streamed_layers_are_away_only_while_they_compute(x: torch.Tensor) -> None:
    module = _Stack().requires_grad_(False)
    expected = module(x)
    homes = [_pointers(layer) for layer in module.layers]
    residency = Residency(torch.device("cpu"))
    residency.place("transformer", module, "layerwise-offload", list(module.layers))
    during: list[bool] = []
    module.layers[1].register_forward_pre_hook(
        lambda layer, _: during.extend([_pointers(layer) != homes[1], _pointers(module.layers[0]) == homes[0]])
    )

    results = [module(x) for _ in range(3)]

    assert all(torch.equal(result, expected) for result in results)
    assert during == [True, True] * 3
    assert [_pointers(layer) for layer in module.layers] == homes


def test_part_of_a_layer_that_is_used_once_stays_at_home(x: torch.Tensor) -> None:
    module = _Stack().requires_grad_(False)
    module.layers[1].once = nn.Linear(4, 4)
    residency = Residency(torch.device("cpu"))
    residency.place("transformer", module, "layerwise-offload", list(module.layers), [module.layers[1].once])
    layer = module.layers[1]
    home = {name: parameter.data_ptr() for name, parameter in layer.named_parameters()}
    away: list[str] = []
    layer.register_forward_pre_hook(
        lambda layer, _: away.extend(name for name, each in layer.named_parameters() if each.data_ptr() != home[name])
    )

    module(x)

    assert away == ["weight", "bias"]
    assert {name: parameter.data_ptr() for name, parameter in layer.named_parameters()} == home


def test_run_that_stops_within_a_layer_leaves_nothing_behind(x: torch.Tensor) -> None:
    module = _Stack().requires_grad_(False)
    expected = module(x)
    homes = _pointers(module)
    residency = Residency(torch.device("cpu"))
    residency.place("transformer", module, "layerwise-offload", list(module.layers))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    handle = module.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        module(x)
    handle.remove()
    residency.release()

    assert _pointers(module) == homes
    assert torch.equal(module(x), expected)


def test_closed_residency_leaves_plain_modules(x: torch.Tensor) -> None:
    module = _Stack().requires_grad_(False)
    residency = Residency(torch.device("cpu"))
    residency.place("transformer", module, "layerwise-offload", list(module.layers))

    residency.close()

    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in module.layers)


class _Late(nn.Module):
    """Multiplies by a weight that it doubles once, at its first use or when it is told to settle."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4), requires_grad=False)
        self.is_settled = False

    def settle(self) -> None:
        if not self.is_settled:
            self.weight = nn.Parameter(2 * self.weight, requires_grad=False)
            self.is_settled = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.settle()
        return x * self.weight


@pytest.mark.parametrize("mode", ["component-offload", "layerwise-offload"])
def test_what_changes_its_weights_at_its_first_use_does_so_before_it_is_moved(x: torch.Tensor, mode: str) -> None:
    module = _Late()
    residency = Residency(torch.device("cpu"))
    residency.place("vae", module, mode)

    for _ in range(2):  # the second use finds what the first did
        residency.use("vae")
        assert torch.equal(module(x), 2 * x)
        residency.release()
