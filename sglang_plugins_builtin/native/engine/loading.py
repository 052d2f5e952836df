"""From a plan to components in their places."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from sglang_core import ExecutionPlan, OffloadOptions, StepControl

from .residency import Residency


@runtime_checkable
class HasStreamedLayers(Protocol):
    """A component that can be streamed: only one or two of its layers need to be on the device at a time."""

    def streamed_layers(self) -> Sequence[nn.Module]:
        """Return the layers, in the order of use; each is called as a module."""


@runtime_checkable
class HasPartsUsedOnce(Protocol):
    """A component with parts that are used once in a run, before its layers: they are not streamed with them."""

    def used_once(self) -> Sequence[nn.Module]:
        """Return the parts, which may be parts of layers."""


def residency_of(plan: ExecutionPlan) -> Residency:
    """Return the places where the components of a plan will live."""
    return Residency(torch.device(plan.device.value), pins=plan.settings.of(OffloadOptions).pin_cpu_memory)


def load_components(
    plan: ExecutionPlan, makers: Mapping[str, Callable[[], Any]], residency: Residency, control: StepControl
) -> dict[str, Any]:
    """Make each component and put it where the plan says; each is a step of the stage ``load``.

    :param makers: by component, in the order they are made.
    """
    components: dict[str, Any] = {}
    with control.stage("load", len(makers), "component"):
        for index, (name, make) in enumerate(makers.items(), start=1):
            components[name] = component = make()
            if isinstance(component, nn.Module):
                layers = component.streamed_layers() if isinstance(component, HasStreamedLayers) else ()
                once = component.used_once() if isinstance(component, HasPartsUsedOnce) else ()
                residency.place(name, component, plan.components[name].residency.value, layers, once)
            control.step("load", index, len(makers), "component")
    return components
