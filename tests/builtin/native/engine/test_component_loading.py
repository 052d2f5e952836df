"""Components are made in order, reported, and put where the plan says."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sglang_core import StepControl, StepDone
from sglang_plugins_builtin.native.engine import Residency, load_components


class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

    def streamed_layers(self) -> list[nn.Module]:
        return list(self.parts)


class _LayersAndParts(_Layers):
    def used_once(self) -> list[nn.Module]:
        return [self.parts[0]]


class _Places(Residency):
    """A residency that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.told: dict[str, tuple[Any, ...]] = {}

    def place(self, name: str, module: nn.Module, mode: str, *parts: Any) -> None:
        self.told[name] = (mode, *(list(part) for part in parts))


@pytest.fixture
def plan() -> Any:
    modes = {"tokenizer": "resident", "vae": "component-offload", "text": "resident", "image": "layerwise-offload"}
    return SimpleNamespace(
        components={name: SimpleNamespace(residency=SimpleNamespace(value=mode)) for name, mode in modes.items()}
    )


def test_modules_are_placed_with_their_layers_and_what_is_used_once(plan) -> None:
    residency = _Places()
    makers = {"tokenizer": object, "vae": lambda: nn.Linear(2, 2), "text": _Layers, "image": _LayersAndParts}

    components = load_components(plan, makers, residency, StepControl())

    assert list(components) == list(makers)
    assert residency.told == {
        "vae": ("component-offload", [], []),
        "text": ("resident", list(components["text"].parts), []),
        "image": ("layerwise-offload", list(components["image"].parts), [components["image"].parts[0]]),
    }


def test_each_component_is_a_step_of_the_stage_load(plan) -> None:
    steps: list[tuple[str, int, int | None]] = []

    def keep(event: object) -> None:
        if isinstance(event, StepDone):
            steps.append((event.stage, event.index, event.total))

    control = StepControl([keep])
    load_components(plan, {"tokenizer": object, "vae": lambda: nn.Linear(2, 2)}, _Places(), control)

    assert steps == [("load", 1, 2), ("load", 2, 2)]
    assert list(control.timings_s) == ["load"]
