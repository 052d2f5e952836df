"""Step control: every step is a boundary where a run can be watched, stopped or timed out."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import DeadlineExceededError, RequestCancelledError
from ..events import Event, EventListener, StageEnded, StageStarted, StepDone

logger = logging.getLogger(__name__)


class StepControl:
    """What a run tells and is told between two steps. One object serves one run, from resolving to saving.

    :param listeners: told every event, in the thread that runs.
    :param timeout_s: seconds from now until the run is stopped with ``DeadlineExceededError``.
    """

    def __init__(self, listeners: Sequence[EventListener] = (), timeout_s: float | None = None) -> None:
        self.run_id = uuid.uuid4().hex
        self.timings_s: dict[str, float] = {}
        self._listeners = list(listeners)
        self._timeout_s = timeout_s
        self._started = time.monotonic()
        self._is_cancelled = False
        self._totals: list[int | None] = []

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since this control was made."""
        return time.monotonic() - self._started

    @property
    def is_cancelled(self) -> bool:
        """Say whether somebody asked to stop."""
        return self._is_cancelled

    @property
    def has_steps(self) -> bool:
        """Say whether a stage with a known number of steps is going on, so that a boundary is near."""
        return any(total is not None for total in self._totals)

    def cancel(self) -> None:
        """Ask the run to stop at its next boundary. Safe from any thread and from signal handlers."""
        self._is_cancelled = True

    def check(self) -> None:
        """Stop here if that was asked for.

        :raises RequestCancelledError: after :meth:`cancel`.
        :raises DeadlineExceededError: when the time is over.
        """
        if self._is_cancelled:
            raise RequestCancelledError
        if self._timeout_s is not None and self.elapsed_s > self._timeout_s:
            raise DeadlineExceededError(
                f"the run was stopped after {self.elapsed_s:.1f} s (--timeout-s {self._timeout_s:g})",
                "allow more time with --timeout-s, or ask for fewer steps or a smaller size",
            )

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "step") -> Iterator[None]:
        """Run the body as the stage ``name``; its time is added to ``timings_s``.

        :param total: the number of its units, when known.
        """
        self.check()
        self.emit(StageStarted(run_id=self.run_id, stage=name, total=total, unit=unit))
        started = time.monotonic()
        is_done = False
        self._totals.append(total if unit == "step" else None)
        try:
            yield
            is_done = True
        finally:
            self._totals.pop()
            duration_s = time.monotonic() - started
            self.timings_s[name] = self.timings_s.get(name, 0.0) + duration_s
            self.emit(StageEnded(run_id=self.run_id, stage=name, duration_s=duration_s, ok=is_done))

    def step(self, stage: str, index: int, total: int | None = None, unit: str = "step") -> None:
        """Report that step ``index`` (from 1) of a stage is done, then stop here if that was asked for."""
        self.emit(StepDone(run_id=self.run_id, stage=stage, index=index, total=total, unit=unit))
        self.check()

    def emit(self, event: Event) -> None:
        """Tell every listener; one that raises is dropped with a warning, the run goes on."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except RequestCancelledError:  # a signal that came while the listener ran
                raise
            except Exception:  # listeners are foreign code
                logger.warning("an event listener failed and is not called again in this run", exc_info=True)
                self._listeners.remove(listener)


def null_control() -> StepControl:
    """Return a control that nobody watches and nobody stops."""
    return StepControl()


def describe_timings(timings_s: Mapping[str, float], duration_s: float) -> dict[str, Any]:
    """Return seconds and share of the whole run for each stage, with what no stage accounts for as ``other``."""
    rows = dict(timings_s)
    rows["other"] = max(0.0, duration_s - sum(timings_s.values()))
    whole_s = duration_s or 1.0  # a clock may not have moved
    return {name: {"seconds": round(s, 3), "share": round(s / whole_s, 4)} for name, s in rows.items()}
