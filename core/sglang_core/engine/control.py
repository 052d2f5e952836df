"""Step control: every step is a boundary where a run can be watched, stopped or timed out."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import field, frozen, validators

from ..errors import DeadlineExceededError, RequestCancelledError
from ..events import Event, EventListener, PreviewReady, RunPaused, RunResumed, StageEnded, StageStarted, StepDone

if TYPE_CHECKING:
    import numpy

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class PreviewWish:
    """After which steps a picture is wished for: so many, spread evenly, and one every so many steps."""

    count: int = field(default=0, validator=validators.ge(0))
    every: int | None = field(default=None, validator=validators.optional(validators.ge(1)))

    def includes(self, index: int, total: int) -> bool:
        """Say whether step ``index`` (from 1) of ``total`` is one of them; the last is none, the result follows it."""
        if not 0 < index < total:
            return False
        if self.every is not None and index % self.every == 0:
            return True
        count = min(self.count, total - 1)
        # The j-th of n pictures belongs to step j * total / (n + 1), rounded up.
        return count > 0 and index * (count + 1) // total != (index - 1) * (count + 1) // total


class StepControl:
    """What a run tells and is told between two steps. One object serves one run, from resolving to saving.

    :param listeners: told every event, in the thread that runs.
    :param timeout_s: seconds from now until the run is stopped with ``DeadlineExceededError``.
    :param previews: after which denoising steps a picture is wished for.
    """

    def __init__(
        self,
        listeners: Sequence[EventListener] = (),
        timeout_s: float | None = None,
        previews: PreviewWish | None = None,
    ) -> None:
        self.run_id = uuid.uuid4().hex
        self.timings_s: dict[str, float] = {}
        #: Seconds in which this run stood still for others (:meth:`paused`): they count for nothing else.
        self.paused_s = 0.0
        self._listeners = list(listeners)
        self._timeout_s = timeout_s
        self._previews = previews
        self._started = time.monotonic()
        self._is_cancelled = False
        self._totals: list[int | None] = []

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since this control was made in which the run did not stand still."""
        return time.monotonic() - self._started - self.paused_s

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
        started_s = self.elapsed_s
        is_done = False
        self._totals.append(total if unit == "step" else None)
        try:
            yield
            is_done = True
        finally:
            self._totals.pop()
            duration_s = self.elapsed_s - started_s
            self.timings_s[name] = self.timings_s.get(name, 0.0) + duration_s
            self.emit(StageEnded(run_id=self.run_id, stage=name, duration_s=duration_s, ok=is_done))

    def step(self, stage: str, index: int, total: int | None = None, unit: str = "step") -> None:
        """Report that step ``index`` (from 1) of a stage is done, then stop here if that was asked for."""
        self.emit(StepDone(run_id=self.run_id, stage=stage, index=index, total=total, unit=unit))
        self.check()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the body do something that is not this run: neither its deadline nor its timings include that."""
        self.emit(RunPaused(run_id=self.run_id))
        started = time.monotonic()
        try:
            yield
        finally:
            paused_s = time.monotonic() - started
            self.paused_s += paused_s
            self.emit(RunResumed(run_id=self.run_id, paused_s=paused_s))

    def wants_preview(self, index: int, total: int | None) -> bool:
        """Say whether a picture is wished for after denoising step ``index`` (from 1) of ``total``.

        Ask after ``step``, and make a picture only if the answer is yes: see :meth:`preview`.
        """
        return self._previews is not None and total is not None and self._previews.includes(index, total)

    def preview(self, frames: "numpy.ndarray[Any, Any]", output: int = 0) -> None:
        """Show how far an output is.

        :param frames: uint8 (frames, height, width, 3); a small picture, or one frame of a clip, is enough.
        :param output: which of the requests that run together it belongs to.
        """
        self.emit(PreviewReady(run_id=self.run_id, frames=frames, output=output))

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
