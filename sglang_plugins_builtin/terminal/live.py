"""Progress drawn with rich, for terminals that can move their cursor.

Importing this module imports rich (about 0.2 s), so the listener does that when a run starts on such a terminal.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from sglang_core import StageEnded, StageStarted, StepDone

from .amounts import bytes_text, count_text, seconds_text

#: Frames a second are drawn by rich's own thread, so that a step only stores two numbers.
REFRESH_PER_SECOND = 5
_BAR_MIN_COLUMNS = 56
_TIME_MIN_COLUMNS = 40


class _CountColumn(ProgressColumn):
    """``12/20 steps``; for bytes with the speed."""

    def render(self, task: Task) -> Text:
        unit = str(task.fields["unit"])
        if not task.completed and task.total is None:
            return Text("")
        text = count_text(unit, int(task.completed), None if task.total is None else int(task.total))
        if unit == "byte" and task.speed:
            text = f"{text}, {bytes_text(task.speed)}/s"
        return Text(text, style="progress.download", no_wrap=True)


class _TimeColumn(ProgressColumn):
    """Time left once the speed is known, else the time so far."""

    def render(self, task: Task) -> Text:
        left_s = task.time_remaining if task.total else None
        text = seconds_text(task.elapsed or 0.0) if left_s is None else f"{seconds_text(left_s)} left"
        return Text(text, style="progress.remaining", no_wrap=True)


class _StageProgress(Progress):
    """One row for each running stage, and above them the stages that are over, fitted to the terminal's width."""

    def __init__(self, console: Console) -> None:
        self.finished_s: dict[str, float] = {}
        is_unicode = console.encoding.lower().startswith("utf")
        self._spinner = SpinnerColumn("dots" if is_unicode else "line")
        self._stage = TextColumn("{task.description}", style="progress.description")
        self._bar = BarColumn(bar_width=20)
        self._count, self._time = _CountColumn(), _TimeColumn()
        super().__init__(
            console=console,
            transient=True,
            refresh_per_second=REFRESH_PER_SECOND,
            # rich would send a redirected stdout to this console, which is stderr
            redirect_stdout=sys.stdout.isatty(),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn; asked for each frame, so a resized terminal is fitted at once."""
        if self.finished_s:
            stages = ", ".join(f"{stage} {seconds_text(s)}" for stage, s in self.finished_s.items())
            yield Text(stages, style="dim", no_wrap=True, overflow="crop")
        if not self.tasks:
            return
        width = self.console.width
        columns: list[ProgressColumn] = [self._spinner, self._stage]
        if width >= _BAR_MIN_COLUMNS:
            self._bar.bar_width = min(40, width - _BAR_MIN_COLUMNS + 10)
            columns.append(self._bar)
        columns.append(self._count)
        if width >= _TIME_MIN_COLUMNS:
            columns.append(self._time)
        self.columns = tuple(columns)
        yield self.make_tasks_table(self.tasks)


class LiveDisplay:
    """Draws the running stages on stderr and erases them when the run is over.

    The cursor is hidden while it draws and comes back with :meth:`close` and within :meth:`aside`.
    """

    is_live = True

    def __init__(self) -> None:
        self._num_done = 0
        self._rows: dict[str, TaskID] = {}
        self._progress = _StageProgress(Console(stderr=True))
        self._log_handlers: list[logging.StreamHandler[TextIO]] = []
        self._stderr = sys.stderr
        self._start()

    def _start(self) -> None:
        self._progress.start()
        # a handler that holds the true stderr would write into the drawing; through rich's stand-in it writes above
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stderr:
                handler.setStream(sys.stderr)
                self._log_handlers.append(handler)

    def _stop(self) -> None:
        while self._log_handlers:
            self._log_handlers.pop().setStream(self._stderr)
        self._progress.stop()

    def stage_started(self, event: StageStarted) -> None:
        """Add a row for the stage."""
        self._remove(event.stage)
        self._add(event.stage, event.total, event.unit)

    def _add(self, stage: str, total: int | None, unit: str) -> TaskID:
        label = f"{stage} (output {self._num_done + 1})" if self._num_done else stage
        # names of stages come from plugins, and the label is rich markup
        self._rows[stage] = row = self._progress.add_task(escape(label), total=total, unit=unit)
        return row

    def step_done(self, event: StepDone) -> None:
        """Move the bar; the next frame shows it."""
        row = self._rows.get(event.stage)
        if row is None:
            row = self._add(event.stage, event.total, event.unit)
        self._progress.update(row, completed=event.index, total=event.total)

    def stage_ended(self, event: StageEnded) -> None:
        """Replace the row by the stage's time in the line of finished stages."""
        finished_s = self._progress.finished_s
        finished_s[event.stage] = finished_s.get(event.stage, 0.0) + event.duration_s
        self._remove(event.stage)

    def _remove(self, stage: str) -> None:
        row = self._rows.pop(stage, None)
        if row is not None:
            self._progress.remove_task(row)

    def output_done(self) -> None:
        """Count a finished output."""
        self._num_done += 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the display away while the body writes to the terminal."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def close(self) -> None:
        """Erase the display and give the cursor back."""
        self._stop()
