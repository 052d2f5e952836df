"""Denoising steps recorded as graphs of kernels, which are started as a whole.

A recorded call reads and writes the same memory each time it is replayed. Of a denoiser's arguments only a few change
from step to step, and have buffers of their own; the others are the same objects throughout a run. So graphs belong to
a run and go with it: prompts, adapters in the weights and places of components may all change before the next.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from attrs import define

from sglang_core import StepControl

from .stages import BatchStage
from .state import RunState


@runtime_checkable
class HasStepArguments(Protocol):
    """A denoiser of which is known what changes from step to step."""

    #: Positions of its ``forward``'s arguments that do; the others are the same objects at each step of a run.
    step_arguments: Sequence[int]
    forward: Callable[..., torch.Tensor]


class Graph(Protocol):
    """One recording."""

    def record(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Record a call, which need not be computed; return the tensor that holds its result after ``replay``."""

    def replay(self) -> None:
        """Compute what was recorded, from what is in its memory now."""

    def release(self) -> None:
        """Wait until it is computed, and free its memory."""


class CudaGraph:
    """A recording on a GPU.

    :param pool: memory that it shares with recordings that are never replayed at the same time.
    """

    def __init__(self, pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._pool = pool

    def record(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Record a call."""
        # Other threads may use the device meanwhile, for example to encode the output before.
        with torch.cuda.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"):
            return call()

    def replay(self) -> None:
        """Start all kernels."""
        self._graph.replay()

    def release(self) -> None:
        """Wait for the last replay, of a run that was stopped too."""
        torch.cuda.current_stream().synchronize()
        self._graph.reset()


def cuda_graphs() -> Callable[[], Graph]:
    """Return what makes the recordings of one run, which share their memory."""
    pool = torch.cuda.graph_pool_handle()
    return lambda: CudaGraph(pool)


class RecordedForward:
    """Stands for a denoiser's ``forward``: outside of runs it is that and nothing else."""

    def __init__(self, denoiser: HasStepArguments) -> None:
        self._forward = denoiser.forward
        self._positions = frozenset(denoiser.step_arguments)
        #: The recordings of the run that takes place.
        self.run: RunGraphs | None = None

    def __call__(self, *arguments: Any) -> torch.Tensor:
        """Compute, or replay."""
        if self.run is None:
            return self._forward(*arguments)
        return self.run.compute(self._forward, self._positions, arguments)


@define(eq=False)
class _Recording:
    #: Kept, so that no other object gets the identity of one of them while the recording is there.
    arguments: Sequence[Any]
    graph: Graph | None = None
    buffers: Sequence[torch.Tensor] = ()
    result: torch.Tensor | None = None


class RunGraphs:
    """The recordings of one run: one for each shape and for each half of guidance that is computed by itself."""

    def __init__(self, make: Callable[[], Graph]) -> None:
        self._make = make
        self._recordings: dict[Any, _Recording] = {}

    def compute(
        self, forward: Callable[..., torch.Tensor], positions: frozenset[int], arguments: Sequence[Any]
    ) -> torch.Tensor:
        """Return ``forward(*arguments)``.

        The first call of a kind is computed as ever, so that libraries are ready; the second is recorded.

        :param positions: of the arguments that change from step to step.
        """
        fixed = [each for place, each in enumerate(arguments) if place not in positions]
        moving = tuple(each for place, each in enumerate(arguments) if place in positions)
        # A bound method is a new object at each use, its owner is not.
        key = (id(getattr(forward, "__self__", forward)), *map(id, fixed), _form(moving))
        recording = self._recordings.get(key)
        if recording is None:
            self._recordings[key] = _Recording(fixed)
            return forward(*arguments)
        given = list(_tensors(moving))
        if recording.graph is None:
            self._record(recording, forward, positions, arguments, given)
        elif given:
            torch._foreach_copy_(list(recording.buffers), given)
        assert recording.graph is not None
        assert recording.result is not None
        recording.graph.replay()
        return recording.result.clone()  # the schedule may remember it, and the next replay writes over it

    def _record(
        self,
        recording: _Recording,
        forward: Callable[..., torch.Tensor],
        positions: frozenset[int],
        arguments: Sequence[Any],
        given: Sequence[torch.Tensor],
    ) -> None:
        buffers = [tensor.clone() for tensor in given]
        remaining = iter(buffers)
        placed = [_replaced(each, remaining) if place in positions else each for place, each in enumerate(arguments)]
        graph = self._make()
        recording.result = graph.record(lambda: forward(*placed))
        recording.graph, recording.buffers = graph, buffers

    def release(self) -> None:
        """Free the memory of all recordings."""
        recordings = list(self._recordings.values())
        self._recordings.clear()
        for recording in recordings:
            recording.result = None
            if recording.graph is not None:
                recording.graph.release()


class RecordedDenoise:
    """The denoising stage with recordings, which are there for one run of it."""

    def __init__(self, stage: BatchStage, forwards: Sequence[RecordedForward], graphs: Callable[[], Any]) -> None:
        self._stage = stage
        self._forwards = forwards
        self._graphs = graphs

    @property
    def name(self) -> str:
        """Return the name of the stage itself."""
        return self._stage.name

    def num_steps(self, state: RunState) -> int | None:
        """Return what the stage itself says."""
        return self._stage.num_steps(state)

    def run(self, state: RunState, control: StepControl) -> None:
        """Run the stage."""
        with self._recordings():
            self._stage.run(state, control)

    def run_batch(self, states: Sequence[RunState], control: StepControl) -> None:
        """Run the stage for several runs."""
        with self._recordings():
            self._stage.run_batch(states, control)

    @contextmanager
    def _recordings(self) -> Iterator[None]:
        """Have recordings of a run. One that takes place in the middle of another has its own."""
        before = [forward.run for forward in self._forwards]
        graphs = RunGraphs(self._graphs())
        for forward in self._forwards:
            forward.run = graphs
        try:
            yield
        finally:
            for forward, run in zip(self._forwards, before, strict=True):
                forward.run = run
            graphs.release()


def record_denoising(pipeline: Any, graphs: Callable[[], Callable[[], Graph]] = cuda_graphs) -> bool:
    """Let a staged pipeline record the steps of its denoisers; say whether it has such.

    :param graphs: called for each run, returns what makes its recordings.
    """
    denoisers = [part for name, part in pipeline.components.items() if name.startswith("transformer")]
    stages: list[Any] = getattr(pipeline, "stages", [])
    places = [place for place, stage in enumerate(stages) if stage.name == "denoise" and isinstance(stage, BatchStage)]
    if not places or not denoisers or not all(isinstance(each, HasStepArguments) for each in denoisers):
        return False
    forwards = [RecordedForward(denoiser) for denoiser in denoisers]
    for denoiser, forward in zip(denoisers, forwards, strict=True):
        denoiser.forward = forward
    for place in places:
        stages[place] = RecordedDenoise(stages[place], forwards, graphs)
    return True


def _form(value: Any) -> Any:
    """Return what has to be equal for a recording to serve: types, shapes, and all that are no tensors."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.dtype
    if attrs.has(type(value)):
        return (type(value), *(_form(getattr(value, field.name)) for field in attrs.fields(type(value))))
    return tuple(map(_form, value)) if isinstance(value, tuple | list) else value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in arguments, in a fixed order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _replaced(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Return an argument with other tensors, taken in the order of ``_tensors``."""
    if isinstance(value, torch.Tensor):
        return next(tensors)
    if attrs.has(type(value)):
        names = [field.name for field in attrs.fields(type(value))]
        return attrs.evolve(value, **{name: _replaced(getattr(value, name), tensors) for name in names})
    return type(value)(_replaced(each, tensors) for each in value) if isinstance(value, tuple | list) else value
