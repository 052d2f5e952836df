"""How long the stages of a run take, and the steps within them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from sglang_core import RunResumed, StageEnded, StageStarted, StepDone

#: Units whose steps are not worth a list: progress comes whenever it comes.
_UNTIMED_UNITS = frozenset({"byte"})


def wait_for_device(device: str) -> None:
    """Wait until a device has done what it was asked to; without that, times tell when work was handed over.

    Does nothing before torch has work there.

    :param device: as a plan names it.
    """
    torch = sys.modules.get("torch")
    if torch is None or device == "cpu" or (device == "cuda" and not torch.cuda.is_initialized()):
        return
    getattr(torch, device).synchronize()


@define(kw_only=True)
class Span:
    """One stage of the run, once. Seconds; ``started_s`` counts from the start of the run."""

    stage: str
    started_s: float
    unit: str
    seconds: float | None = None
    is_ok: bool = False
    #: What each step took, in their order.
    step_seconds: list[float] = field(factory=list)
    last_mark_s: float = 0.0


class Recorder:
    """Turns the events of a run into spans, in the order they began.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.spans: list[Span] = []
        self.device = "cpu"
        self._clock = clock
        self._started_s = clock()
        self._paused_s = 0.0
        self._open: list[Span] = []

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the run began in which it did not stand still."""
        return self._clock() - self._started_s - self._paused_s

    def resumed(self, event: RunResumed) -> None:
        """Leave out the time in which the run stood still for another."""
        self._paused_s += event.paused_s

    def stage_started(self, event: StageStarted) -> None:
        """Begin a span."""
        now = self._now()
        span = Span(stage=event.stage, started_s=now, unit=event.unit, last_mark_s=now)
        self.spans.append(span)
        self._open.append(span)

    def step_done(self, event: StepDone) -> None:
        """Note what the step took: the time since the last one, or since the stage began."""
        span = next((span for span in reversed(self._open) if span.stage == event.stage), None)
        if span is None or event.unit in _UNTIMED_UNITS:
            return
        now = self._now()
        span.unit = event.unit
        span.step_seconds.append(now - span.last_mark_s)
        span.last_mark_s = now

    def stage_ended(self, event: StageEnded) -> Span | None:
        """End the span and return it; ``None`` if it never began."""
        span = next((span for span in reversed(self._open) if span.stage == event.stage), None)
        if span is not None:
            self._open.remove(span)
            span.seconds, span.is_ok = self._now() - span.started_s, event.ok
        return span

    def _now(self) -> float:
        wait_for_device(self.device)
        return self.elapsed_s
