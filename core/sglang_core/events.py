"""What the host tells about a run while it happens."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen


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


@frozen(kw_only=True)
class StageEnded(Event):
    """A stage is over, ``duration_s`` after it began. ``ok`` is false if it raised."""

    stage: str
    duration_s: float
    ok: bool = True


@frozen(kw_only=True)
class OutputSaved(Event):
    """A file of the result is complete at ``path``."""

    path: str
    index: int
    details: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class RunEnded(Event):
    """A run is over: ``outcome`` is ``completed``, ``failed`` or ``cancelled``."""

    outcome: str
    duration_s: float


EventListener = Callable[[Event], None]
