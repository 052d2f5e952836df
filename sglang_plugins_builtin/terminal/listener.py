"""Follows the events of runs and keeps a display for each."""

from __future__ import annotations

import atexit
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TextIO

from sglang_core import OutputSaved, OutputUploaded, RunEnded, RunStarted, StageEnded, StageStarted, StepDone

from .config import TerminalOptions
from .plain import PlainDisplay, SilentDisplay
from .summary import can_move_cursor, may_style, output_line, run_line
from .writing import write_line

if TYPE_CHECKING:
    from sglang_core import Event, Settings


class Display(Protocol):
    """Shows the stages of one run."""

    @property
    def is_live(self) -> bool:
        """Whether it draws on the terminal between events."""

    def stage_started(self, event: StageStarted) -> None:
        """Show that a stage runs."""

    def step_done(self, event: StepDone) -> None:
        """Show how far it is."""

    def stage_ended(self, event: StageEnded) -> None:
        """Show that it is over."""

    def output_done(self) -> None:
        """Count a finished output."""

    def aside(self) -> AbstractContextManager[None]:
        """Keep out of the way while the body writes to the terminal."""

    def close(self) -> None:
        """Leave the terminal as it was; may be called twice."""


class _WatchedRun:
    """One run: its display, its options, and what it saved so far."""

    def __init__(self, display: Display, options: TerminalOptions) -> None:
        self.display = display
        self.options = options
        self.num_saved = 0
        self._last_output_s = time.monotonic()

    def output_saved(self, event: OutputSaved) -> None:
        """Print the line of an output, and its preview if that was asked for."""
        self.num_saved += 1
        self.display.output_done()
        now = time.monotonic()
        elapsed_s, self._last_output_s = now - self._last_output_s, now
        with self.display.aside():
            if not self.options.quiet:
                # the line is the answer, so it goes to stdout, unless that is to be read as JSON
                stream = sys.stderr if self.options.json else sys.stdout
                write_line(stream, output_line(event, elapsed_s, may_style(stream.isatty())))
            if self.options.show:
                from .show import show_preview

                show_preview(event.path, _terminal_streams(self.options))

    def output_uploaded(self, event: OutputUploaded) -> None:
        """Print where an output went. With ``--json`` the answer says it: a signed URL is not for stderr."""
        if self.options.quiet or self.options.json:
            return
        with self.display.aside():
            write_line(sys.stdout, f"{event.path} is now {event.url}")

    def ended(self, event: RunEnded) -> None:
        """Close the display and sum up a run that did not make exactly one output."""
        self.display.close()
        line = run_line(self.num_saved, event.duration_s)
        if event.outcome == "completed" and line and not self.options.quiet:
            write_line(sys.stderr, line)


class RunWatcher:
    """Listens to all runs of this process. Runs of servers and of the Python API are not shown."""

    def __init__(self) -> None:
        self._runs: dict[str, _WatchedRun] = {}

    def tell(self, event: Event) -> None:
        """Show an event; on an error the run's display is taken away before the error goes on."""
        try:
            self._tell(event)
        except BaseException:
            run = self._runs.pop(event.run_id, None)
            if run is not None:
                run.display.close()
            raise

    def _tell(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._start(event)
            return
        run = self._runs.get(event.run_id)
        if run is None:
            return
        if isinstance(event, StepDone):
            run.display.step_done(event)
        elif isinstance(event, StageStarted):
            run.display.stage_started(event)
        elif isinstance(event, StageEnded):
            run.display.stage_ended(event)
        elif isinstance(event, OutputSaved):
            run.output_saved(event)
        elif isinstance(event, OutputUploaded):
            run.output_uploaded(event)
        elif isinstance(event, RunEnded):
            self._runs.pop(event.run_id).ended(event)

    def _start(self, event: RunStarted) -> None:
        settings: Settings = event.settings
        if TerminalOptions not in settings.values or not _has_audience(settings):
            return
        if not self._runs:
            # a process that ends without RunEnded must not leave the terminal without cursor
            atexit.unregister(self.close)
            atexit.register(self.close)
        options = settings.of(TerminalOptions)
        is_first = not any(run.display.is_live for run in self._runs.values())
        display = _create_display(options, may_draw=is_first)
        self._runs[event.run_id] = _WatchedRun(display, options)

    def close(self) -> None:
        """Take every display away."""
        while self._runs:
            _, run = self._runs.popitem()
            run.display.close()


def _create_display(options: TerminalOptions, may_draw: bool) -> Display:
    if options.quiet:
        return SilentDisplay()
    if options.json or not may_draw or not _can_draw(sys.stderr):
        return PlainDisplay(sys.stderr)
    from .live import LiveDisplay  # rich: 0.2 s

    return LiveDisplay()


def _has_audience(settings: Settings) -> bool:
    """Say whether a person at a command line started the run; what uses the Python API shows what it wants."""
    kinds = {origin.kind for origin in settings.origins.values()}
    is_command_line = "python" not in kinds or not kinds.isdisjoint({"flag", "file"})
    return is_command_line or settings.is_given("quiet") or settings.is_given("show")


def _can_draw(stream: TextIO) -> bool:
    return stream.isatty() and can_move_cursor()


def _terminal_streams(options: TerminalOptions) -> tuple[TextIO, ...]:
    """Return where a picture may be drawn, the best place first."""
    return (sys.stderr,) if options.json else (sys.stdout, sys.stderr)
