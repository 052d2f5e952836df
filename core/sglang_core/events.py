"""What the host tells about a run while it happens."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    import numpy


@frozen(kw_only=True)
class Event:
    """Something that happened in a run. ``run_id`` is the same for all events of one run."""

    run_id: str


@frozen(kw_only=True)
class RunStarted(Event):
    """A run begins; sent before anything is loaded.

    ``settings`` are the final settings of the run (:class:`~sglang_core.Settings`); ``num_outputs`` is what they ask
    for as far as they tell before planning.
    """

    settings: Any
    num_outputs: int = 1
    #: The jobs of a server that it runs; empty where there is no server, and where the model is loaded.
    job_ids: tuple[str, ...] = ()


@frozen(kw_only=True)
class RunPlanned(Event):
    """Everything about a run is decided; nothing is loaded yet, unless the model was loaded before the run.

    ``plan`` is the :class:`~sglang_core.ExecutionPlan`.
    """

    plan: Any


@frozen(kw_only=True)
class StageStarted(Event):
    """A stage (``resolve``, ``load``, ``encode``, ``denoise``, ``decode``, ``save``, ...) begins.

    ``total`` is the number of its steps, bytes or files when that is known.
    """

    stage: str
    total: int | None = None
    unit: str = "step"


@frozen(kw_only=True)
class StepDone(Event):
    """One step of a stage is done. ``index`` counts from 1."""

    stage: str
    index: int
    total: int | None
    unit: str = "step"


@frozen(kw_only=True, eq=False)
class PreviewReady(Event):
    """A picture of how far an output is, made between two steps because somebody wished for it.

    ``frames`` is a uint8 array of shape (frames, height, width, 3), perhaps smaller than the output. ``output`` is the
    place of the output among those that run together.
    """

    frames: "numpy.ndarray[Any, Any]"
    output: int = 0


@frozen(kw_only=True)
class StageEnded(Event):
    """A stage is over, ``duration_s`` after it began. ``ok`` is false if it raised."""

    stage: str
    duration_s: float
    ok: bool = True


@frozen(kw_only=True)
class RunPaused(Event):
    """A run stands still, because a smaller one takes place in the middle of it; events of that one follow."""


@frozen(kw_only=True)
class RunResumed(Event):
    """A run goes on that stood still for ``paused_s`` seconds, which are in none of its durations."""

    paused_s: float


@frozen(kw_only=True)
class OutputSaved(Event):
    """A file of the result is complete at ``path``."""

    path: str
    index: int
    details: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class OutputUploaded(Event):
    """A file of the result is in a storage, and no longer at ``path``.

    ``url`` is for the person who asked: it may be signed, so it does not belong into a log.
    """

    path: str
    index: int
    url: str


@frozen(kw_only=True)
class RunEnded(Event):
    """A run is over: ``outcome`` is ``completed``, ``failed`` or ``cancelled``."""

    outcome: str
    duration_s: float


EventListener = Callable[[Event], None]
