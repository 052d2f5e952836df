"""When torch's profiler runs: for some denoising steps, or for all stages of an output."""

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sglang_core import StageEnded, StageStarted, StepDone

from .config import DEFAULT_PROFILED_STEPS, PerformanceOptions
from .writing import write_whole

logger = logging.getLogger(__name__)

#: What the host and the backends do before the first output.
_BEFORE_OUTPUTS = frozenset({"plan", "fetch", "import", "load"})
_DENOISE, _SAVE = "denoise", "save"
_ANOTHER = "another run"


class Profiling:
    """Follows one run and writes one trace of it.

    :param path: where the trace goes.
    """

    def __init__(self, options: PerformanceOptions, path: Path) -> None:
        self.path = path
        self._all_stages = options.profile_all_stages
        self._num_steps = options.num_profiled_timesteps or DEFAULT_PROFILED_STEPS
        self._trace: _Trace | None = None
        self._num_traced = 0
        self._is_over = False
        self._has_worked = False

    def stage_started(self, event: StageStarted) -> None:
        """Begin the trace if this is its first stage; mark the stage in it."""
        if event.stage == _SAVE:
            self.finish()
            return
        is_of_output = event.stage not in _BEFORE_OUTPUTS
        self._has_worked |= is_of_output
        is_first = is_of_output if self._all_stages else self._has_no_warm_up(event)
        if is_first and self._trace is None and not self._is_over:
            self._begin()
        if self._trace is not None:
            self._trace.mark(event.stage)
            if event.total is not None:
                self._trace.mark(_step_name(event.stage, 1))

    def _has_no_warm_up(self, event: StageStarted) -> bool:
        return event.stage == _DENOISE and (event.total is None or event.total == 1)

    def step_done(self, event: StepDone) -> None:
        """Begin the trace after the first denoising step, and end it after the wanted number."""
        if self._is_over:
            return
        if self._trace is None:
            if self._all_stages or event.stage != _DENOISE:
                return
            self._begin()
        else:
            self._trace.unmark(_step_name(event.stage, event.index))
            self._num_traced += 1
            if not self._all_stages and self._num_traced >= self._num_steps:
                self.finish()
                return
        if self._trace is not None and (event.total is None or event.index < event.total):
            self._trace.mark(_step_name(event.stage, event.index + 1))

    def stage_ended(self, event: StageEnded) -> None:
        """End the mark of the stage, and the trace with the denoising."""
        if self._trace is not None:
            self._trace.unmark(event.stage)
        if event.stage == _DENOISE and not self._all_stages:
            self.finish()

    def _begin(self) -> None:
        if _Trace.is_running:
            logger.warning("a run is not profiled, for it takes place in the middle of one that is")
            self._is_over = True
        else:
            self._trace = _Trace()

    def paused(self) -> None:
        """Mark that what follows in the trace is another run, in the middle of this one."""
        if self._trace is not None:
            self._trace.mark(_ANOTHER)

    def resumed(self) -> None:
        """End that mark."""
        if self._trace is not None:
            self._trace.unmark(_ANOTHER)

    def finish(self) -> None:
        """Stop the profiler and write the trace; does nothing if it is not running."""
        trace, self._trace = self._trace, None
        if trace is None:
            return
        self._is_over = True
        write_whole(self.path, trace.write)
        logger.info("trace written to %s: open it in https://ui.perfetto.dev or chrome://tracing", self.path)

    def run_ended(self) -> None:
        """Write what there is, or say why there is nothing; a run that only loads a model is traced later."""
        self.finish()
        if self._has_worked and not self._is_over:
            logger.warning("nothing was profiled: the run did not come to a step to be traced")


def _step_name(stage: str, index: int) -> str:
    return f"{stage} step {index}"


class _Trace:
    """The running profiler, with named ranges that nest. There is one in a process."""

    is_running = False

    def __init__(self) -> None:
        import torch  # the backend has it loaded by now
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._profile = profile(activities=activities, record_shapes=True)
        self._profile.start()
        _Trace.is_running = True
        self._marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        from torch.profiler import record_function

        mark: AbstractContextManager[Any] = record_function(name)
        mark.__enter__()
        self._marks.append((name, mark))

    def unmark(self, name: str) -> None:
        """End the named range and those within it."""
        if all(each != name for each, _ in self._marks):
            return
        while self._marks:
            each, mark = self._marks.pop()
            mark.__exit__(None, None, None)
            if each == name:
                return

    def write(self, path: Path) -> None:
        while self._marks:
            self.unmark(self._marks[-1][0])
        _Trace.is_running = False
        self._profile.stop()
        self._profile.export_chrome_trace(str(path))
