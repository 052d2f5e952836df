"""What a run takes on its device: the weights that are there, and what each stage needs beside them. Without torch."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from attrs import evolve, field, frozen

from .devices import PRECISION_BYTES
from .memory import estimate_activation_bytes
from .models import ComponentDescription, ModelDescription
from .planning_types import ComponentPlan, MemoryEstimate
from .requests import GenerationRequest
from .safetensors_header import DTYPE_BYTES

if TYPE_CHECKING:
    from .options import Settings
    from .planning_types import ExecutionPlan

#: Of a side, where neither the request nor the model says it.
_ASSUMED_SIZE = 1024
#: Layers of a streamed component that are on the device at once: the one that computes and the next.
_LAYERS_AT_ONCE = 2
#: What belongs to one layer of a stack: ``blocks.7.attn.to_q.weight``.
_LAYER = re.compile(r"(.*?\.\d+)\.")
_FLOATS = {"fp64", "fp32", "fp16", "bf16"}


@frozen(kw_only=True)
class MemoryQuery:
    """One run, as far as the memory it takes depends on it. The request holds width and height."""

    model: ModelDescription
    request: GenerationRequest
    #: By component, ``None`` for those without weights.
    precisions: Mapping[str, str | None]
    device: str
    settings: "Settings"


@frozen(kw_only=True)
class MemoryStage:
    """One part of a run, and the most it takes on the device beside weights, in bytes."""

    name: str
    activation_bytes: int
    #: The components that compute in it, one at a time: an offloaded one is on the device then.
    components: tuple[str, ...] = ()


@frozen(kw_only=True)
class StreamedWeights:
    """What a component takes on the device while its layers are streamed, in bytes."""

    #: What is no layer and stays.
    kept_bytes: int
    #: The layers that are there at once.
    moving_bytes: int


@frozen(kw_only=True)
class RunMemory:
    """An upper estimate of what one output takes, stage by stage."""

    stages: tuple[MemoryStage, ...]
    #: Weights in memory by component, where that is not their size in the files.
    weights_bytes: Mapping[str, int] = field(factory=dict)
    #: Components that can be streamed; another one is moved as a whole.
    streamed: Mapping[str, StreamedWeights] = field(factory=dict)
    #: Whether it is known to be an upper estimate; if not, nothing is refused because of it.
    is_upper: bool = True


#: Returns what another request of the same model would take.
MemoryOf = Callable[[GenerationRequest], RunMemory]


@runtime_checkable
class EstimatesMemory(Protocol):
    """What an execution backend or a model family may have beside its other methods.

    Without it, or where it answers ``None``, the host estimates from the configurations, which fits most models
    roughly.
    """

    def estimate_memory(self, query: MemoryQuery) -> RunMemory | None:
        """Return what a run takes, from descriptions alone: nothing heavy is imported."""


def run_memory(estimator: object, query: MemoryQuery) -> RunMemory:
    """Return what a run takes, by the backend's or family's own estimate if it has one."""
    request = query.request
    if not request.width or not request.height:
        request = evolve(request, width=request.width or _ASSUMED_SIZE, height=request.height or _ASSUMED_SIZE)
        query = evolve(query, request=request)
    answer = estimator.estimate_memory(query) if _estimates(estimator) else None
    return _rough_memory(query) if answer is None else answer


def _estimates(estimator: object) -> TypeGuard[EstimatesMemory]:
    # Of the class, as Python remembers the answer: asking the object takes 10 us, for each request.
    return issubclass(type(estimator), EstimatesMemory)


def memory_query(plan: "ExecutionPlan", request: GenerationRequest) -> MemoryQuery:
    """Return the question what a request takes that runs on a loaded plan."""
    return MemoryQuery(
        model=plan.model,
        request=request,
        precisions={name: component.precision.value for name, component in plan.components.items()},
        device=plan.device.value,
        settings=plan.settings,
    )


def _rough_memory(query: MemoryQuery) -> RunMemory:
    request = query.request
    working = estimate_activation_bytes(
        query.model,
        width=request.width or _ASSUMED_SIZE,
        height=request.height or _ASSUMED_SIZE,
        num_frames=request.num_frames or 1,
        batch=1,
        precisions={name: precision for name, precision in query.precisions.items() if precision},
    )
    stage = MemoryStage(name="run", activation_bytes=working, components=tuple(query.model.components))
    return RunMemory(stages=(stage,), is_upper=False)


def stage_weights(memory: RunMemory, components: Mapping[str, ComponentPlan]) -> dict[str, int]:
    """Return the bytes of weights that are on the device in each stage: what stays, and the most of what takes turns.

    :param components: precision and residency of each.
    """
    staying, moving = 0, {}
    for name, plan in components.items():
        weights = memory.weights_bytes.get(name, plan.num_bytes)
        streamed = memory.streamed.get(name)
        if plan.residency.value == "resident":
            staying += weights
        elif plan.residency.value == "layerwise-offload" and streamed is not None:
            staying += streamed.kept_bytes
            moving[name] = streamed.moving_bytes
        else:
            moving[name] = weights
    return {
        stage.name: staying + max((moving.get(name, 0) for name in stage.components), default=0)
        for stage in memory.stages
    }


def estimate_of(
    memory: RunMemory, components: Mapping[str, ComponentPlan], available_bytes: int | None
) -> MemoryEstimate:
    """Return the estimate for a plan: its largest stage decides."""
    weights = stage_weights(memory, components)
    peaks = {stage.name: weights[stage.name] + stage.activation_bytes for stage in memory.stages}
    largest = max(memory.stages, key=lambda stage: peaks[stage.name])
    return MemoryEstimate(
        weights_bytes=sum(memory.weights_bytes.get(name, plan.num_bytes) for name, plan in components.items()),
        device_weights_bytes=weights[largest.name],
        activations_bytes=largest.activation_bytes,
        available_bytes=available_bytes,
        peak_stage=largest.name,
        stage_peak_bytes=peaks,
    )


def loaded_bytes(
    component: ComponentDescription, precision: str | None, *, keeps: Callable[[str], bool] = lambda name: True
) -> int:
    """Return the bytes of a component's weights in a precision, of those stored names that ``keeps`` accepts.

    Floating-point values change size, others keep theirs. Pickled files tell their size only: it counts as it is.
    """
    total = 0
    for file in component.weights:
        if not file.values_by_name:
            total += file.num_bytes
        for name, (dtype, count) in file.values_by_name.items():
            if keeps(name):
                total += count * _value_bytes(dtype, precision)
    return total


def streamed_weights(
    component: ComponentDescription, precision: str | None, *, keeps: Callable[[str], bool] = lambda name: True
) -> StreamedWeights | None:
    """Return what streaming the numbered layers of a component leaves on the device; ``None`` where it has none.

    The names tell them: what shares a beginning up to a number is a layer.
    """
    layers: dict[str, int] = {}
    kept = 0
    for file in component.weights:
        for name, (dtype, count) in file.values_by_name.items():
            if not keeps(name):
                continue
            found = _LAYER.match(name)
            size = count * _value_bytes(dtype, precision)
            if found is None:
                kept += size
            else:
                layers[found[1]] = layers.get(found[1], 0) + size
    if len(layers) <= _LAYERS_AT_ONCE:
        return None
    return StreamedWeights(kept_bytes=kept, moving_bytes=sum(sorted(layers.values())[-_LAYERS_AT_ONCE:]))


def _value_bytes(dtype: str, precision: str | None) -> int:
    return PRECISION_BYTES.get(precision or "", 4) if dtype in _FLOATS else DTYPE_BYTES.get(dtype.upper(), 1)
