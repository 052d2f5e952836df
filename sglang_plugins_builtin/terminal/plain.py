"""Progress as a few log lines, for pipes, files and terminals without cursor control."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from .amounts import amount_text, count_text, seconds_text
from .writing import write_line

if TYPE_CHECKING:
    from sglang_core import StageEnded, StageStarted, StepDone

#: A stage that takes longer than this gets a line in between.
REPORT_INTERVAL_S = 30.0


class PlainDisplay:
    """Writes one line when a stage ends, and one now and then while a long one runs.

    :param stream: where the lines go.
    :param clock: seconds that only grow.
    """

    is_live = False

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._steps: dict[str, StepDone] = {}
        self._last_line_s = clock()

    def stage_started(self, event: StageStarted) -> None:
        """Forget the steps of an earlier stage of this name."""
        self._steps.pop(event.stage, None)
        self._last_line_s = self._clock()

    def step_done(self, event: StepDone) -> None:
        """Remember the step; report it if nothing was said for long."""
        self._steps[event.stage] = event
        now = self._clock()
        if now - self._last_line_s >= REPORT_INTERVAL_S:
            self._last_line_s = now
            write_line(self._stream, f"{event.stage}: {count_text(event.unit, event.index, event.total)}")

    def stage_ended(self, event: StageEnded) -> None:
        """Say what the stage did and how long it took."""
        last = self._steps.pop(event.stage, None)
        amount = f"{amount_text(last.unit, last.index)} in " if last else ""
        outcome = "" if event.ok else "stopped after "
        write_line(self._stream, f"{event.stage}: {outcome}{amount}{seconds_text(event.duration_s)}")

    def output_done(self) -> None:
        """Do nothing: the line of the output says it."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the body write to the terminal; nothing is in its way here."""
        yield

    def close(self) -> None:
        """Do nothing: nothing is left open."""


class SilentDisplay:
    """Shows nothing."""

    is_live = False

    def stage_started(self, event: StageStarted) -> None:
        """Do nothing."""

    def step_done(self, event: StepDone) -> None:
        """Do nothing."""

    def stage_ended(self, event: StageEnded) -> None:
        """Do nothing."""

    def output_done(self) -> None:
        """Do nothing."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the body write to the terminal."""
        yield

    def close(self) -> None:
        """Do nothing."""
