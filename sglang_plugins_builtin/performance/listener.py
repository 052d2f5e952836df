"""Follows the events of the runs that ask to be measured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sglang_core import RunEnded, RunPaused, RunPlanned, RunResumed, RunStarted, StageEnded, StageStarted, StepDone

from .config import PerformanceOptions
from .recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from sglang_core import Event, ExecutionPlan, Settings

    from .profiling import Profiling

logger = logging.getLogger(__name__)


class PerformanceWatcher:
    """Listens to all runs of this process; those that ask for nothing are left alone."""

    def __init__(self) -> None:
        self._runs: dict[str, _MeasuredRun] = {}

    def tell(self, event: Event) -> None:
        """Measure an event. A file that can not be written is a warning: the run goes on."""
        if isinstance(event, RunStarted):
            settings: Settings = event.settings
            options = settings.of(PerformanceOptions)
            if options.perf_dump_path or options.stage_logging or options.is_profiling:
                self._runs[event.run_id] = _MeasuredRun(event.run_id, options, _trace_folder(settings))
            return
        run = self._runs.get(event.run_id)
        if run is None:
            return
        if isinstance(event, RunEnded):
            del self._runs[event.run_id]
        try:
            run.tell(event)
        except OSError as error:
            logger.warning("%s can not be written: %s", error.filename or "a file", error.strerror or error)


def _trace_folder(settings: Settings) -> Path:
    """Return where traces go: with ``--profile`` to the folder for those, if somebody chose one."""
    options = settings.of(PerformanceOptions)
    is_chosen = options.profile and settings.is_given("torch_profiler_dir")
    return options.torch_profiler_dir if is_chosen or options.profile_dir is None else options.profile_dir


class _MeasuredRun:
    def __init__(self, run_id: str, options: PerformanceOptions, trace_folder: Path) -> None:
        self._options = options
        self._recorder = Recorder()
        self._plan: ExecutionPlan | None = None
        self._profiling: Profiling | None = None
        if options.is_profiling:
            from . import profiling  # what measures is imported where something is measured

            what = "all-stages" if options.profile_all_stages else "denoise"
            self._profiling = profiling.Profiling(options, trace_folder / f"{what}-{run_id[:12]}.trace.json")

    def tell(self, event: Event) -> None:
        if isinstance(event, RunPlanned):
            self._plan = event.plan
            if self._options.perf_dump_path or self._options.stage_logging:  # not in a trace, which sees the device
                self._recorder.device = event.plan.device.value
        elif isinstance(event, StageStarted):
            if self._profiling is not None:
                self._profiling.stage_started(event)
            self._recorder.stage_started(event)
        elif isinstance(event, StepDone):
            self._recorder.step_done(event)
            if self._profiling is not None:
                self._profiling.step_done(event)
        elif isinstance(event, StageEnded):
            span = self._recorder.stage_ended(event)
            if self._options.stage_logging and span is not None:
                from .report import stage_line

                logger.info("%s", stage_line(span))
            if self._profiling is not None:
                self._profiling.stage_ended(event)
        elif isinstance(event, RunPaused):
            if self._profiling is not None:
                self._profiling.paused()
        elif isinstance(event, RunResumed):
            self._recorder.resumed(event)
            if self._profiling is not None:
                self._profiling.resumed()
        elif isinstance(event, RunEnded):
            self._ended(event)

    def _ended(self, event: RunEnded) -> None:
        if self._options.perf_dump_path is not None:
            from .report import make_report, write_report

            report = make_report(event.run_id, event.outcome, event.duration_s, self._recorder.spans, self._plan)
            write_report(self._options.perf_dump_path, report)
        if self._profiling is not None:
            self._profiling.run_ended()
