"""Running the items of a work in the process that holds the model. One that fails fails alone."""

import logging
import mimetypes
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve

from ..errors import (
    ConfigError,
    DeadlineExceededError,
    OutOfDeviceMemoryError,
    OutputError,
    RequestCancelledError,
    RequestError,
    SglangError,
)
from ..events import RunPlanned
from ..foreign_code import DEBUG_HINT
from ..generation import announced, finish_output, run_requests
from ..jobs.records import NOT_WRITTEN, JobError, JobOutput
from ..log_lines import log_fields
from ..options import Settings
from ..options.host import RunOptions
from ..planning import replan_requests
from ..planning_types import ExecutionPlan
from ..plugins import PluginManager
from ..requests import GenerationOutput
from .control import PreviewWish
from .in_process import Engine
from .rank_control import RankControl, RunWork
from .reporting import Reporter, Tell
from .request_settings import RequestSettings
from .work import ItemResult, WorkItem

logger = logging.getLogger(__name__)

_MEDIA_TYPES = mimetypes.MimeTypes()  # not those of this machine's files
_MEDIA_TYPES.add_type("image/webp", ".webp")
_MEDIA_TYPES.add_type("image/avif", ".avif")


@define
class _Planned:
    """An item whose plan is made."""

    item: WorkItem
    plan: ExecutionPlan
    settings: Settings


class ItemRunner:
    """Runs items on a loaded engine, one work at a time, but for one that is interjected: it runs within another.

    :meth:`cancel` and :meth:`begin` may be called from any thread.

    :param interjected: asked at the boundaries of a run for a work to be run there, where the engine can do that.
    """

    def __init__(
        self,
        manager: PluginManager,
        settings: Settings,
        engine: Engine,
        *,
        tell: Tell,
        on_life: Callable[[], None],
        interjected: Callable[[], RunWork | None],
    ) -> None:
        self._manager = manager
        self._request_settings = RequestSettings(manager, settings)
        self._engine = engine
        self._tell = tell
        self._on_life = on_life
        self._interjected = interjected
        #: 1 while a work runs, 2 while another runs in its middle.
        self._depth = 0
        self._lock = threading.Lock()
        #: The items of the works that were begun, and whether each is told to stop.
        self._is_told: dict[str, bool] = {}
        #: Of the items that run; those that run together have one.
        self._controls: dict[str, RankControl] = {}

    def begin(self, items: Sequence[WorkItem]) -> None:
        """Note what will run, so that it can be cancelled from now on."""
        with self._lock:
            self._is_told.update({item.id: False for item in items})

    def cancel(self, item_id: str) -> None:
        """Stop an item at its next boundary; of items that run together only the result of this one is dropped."""
        with self._lock:
            if item_id in self._is_told:
                self._is_told[item_id] = True
            control = self._controls.get(item_id)
            group = [other for other, its in self._controls.items() if its is control]
            if control is not None and all(self._is_told[other] for other in group):
                control.cancel()

    def run(self, items: Sequence[WorkItem], folder: Path, finished: Callable[[ItemResult], None]) -> None:
        """Run what :meth:`begin` noted; ``finished`` is told each item as soon as it has ended."""
        self._depth += 1
        try:
            self._run(items, folder, finished)
        finally:
            self._depth -= 1
            with self._lock:
                for item in items:
                    self._is_told.pop(item.id, None)
                    self._controls.pop(item.id, None)

    def _run(self, items: Sequence[WorkItem], folder: Path, finished: Callable[[ItemResult], None]) -> None:
        planned: list[_Planned] = []
        for item in items:
            with log_fields(job_id=item.id):
                try:
                    planned.append(self._plan(item, folder))
                except Exception as error:  # plugins are asked while planning: foreign code may raise anything
                    finished(ItemResult(id=item.id, error=_failure(error)))
        if len(planned) > 1 and self._engine.can_batch:
            with log_fields(job_ids=[each.item.id for each in planned]):
                planned = self._run_together(planned, finished)
        for each in planned:
            with log_fields(job_id=each.item.id):
                finished(self._run_alone(each))

    def follow(self, values: Mapping[str, Any]) -> None:
        """Bring the engine into the state that requests with these settings ask for, between two works.

        :raises SglangError: if that can not be; the engine is as before then.
        """
        settings = self._request_settings.of(values)
        plan = replan_requests(self._manager, self._engine.plan, settings, may_lack_inputs=True)
        self._engine.follow(plan)

    def _plan(self, item: WorkItem, folder: Path) -> _Planned:
        name = str(item.settings.get("output_file_name") or "")
        extension = f".{name.rpartition('.')[2]}" if "." in name else ""
        own = {
            "output_path": str(folder),
            "output_file_path": None,
            "output_file_name": f"{item.id}{extension}",
            "save_output": True,
            "return_frames": False,
        }
        settings = self._request_settings.of({**item.settings, **own})
        return _Planned(item, replan_requests(self._manager, self._engine.plan, settings), settings)

    def _is_cancelled(self, item_id: str) -> bool:
        with self._lock:
            return self._is_told[item_id]

    def _control(self, group: Sequence[_Planned]) -> RankControl:
        """Return the control of items that run together, known to :meth:`cancel`."""
        wishes = {each.item.id: wish for each in group if (wish := _preview_wish(each.item)) is not None}
        reporter = Reporter([(each.item.id, len(each.plan.requests)) for each in group], self._tell, wishes)
        # In the middle of an interjected run nothing is interjected: one level is enough, and memory is finite.
        may_interject = self._engine.can_interleave and self._depth == 1
        control = RankControl(
            [*self._manager.listeners(), reporter],
            timeout_s=group[0].settings.of(RunOptions).timeout_s,
            previews=next(iter(wishes.values()), None),  # the first one's serves all of a batch
            on_life=self._on_life,
            interjected=self._interjected if may_interject else None,
        )
        with self._lock:
            self._controls.update({each.item.id: control for each in group})
            if all(self._is_told[each.item.id] for each in group):
                control.cancel()
        return control

    def _run_alone(self, planned: _Planned) -> ItemResult:
        item_id = planned.item.id
        if self._is_cancelled(item_id):
            return ItemResult(id=item_id, is_cancelled=True)
        control = self._control([planned])
        outputs: list[JobOutput] = []

        def keep(index: int, output: GenerationOutput) -> None:
            outputs.append(_describe(index, output, planned.plan))

        result = ItemResult(id=item_id)
        try:
            with announced(control, planned.settings, (item_id,)):
                control.emit(RunPlanned(run_id=control.run_id, plan=planned.plan))
                # The server moves the files to where they stay.
                run_requests(self._manager, planned.plan, self._engine, control, keep, stays=False)
        except RequestCancelledError:
            result = evolve(result, is_cancelled=True)
        except Exception as error:  # a pipeline, an encoder, a listener: foreign code may raise anything
            result = evolve(result, error=_failure(error))
        return evolve(
            result,
            outputs=tuple(outputs),
            timings_s=dict(control.timings_s),
            paused_s=control.paused_s,
            peak_memory_bytes=control.memory.num_bytes,
        )

    def _run_together(self, group: list[_Planned], finished: Callable[[ItemResult], None]) -> list[_Planned]:
        """Run items as one batch; return those that have to run alone because the batch as a whole failed."""
        group = [each for each in group if not self._told_cancelled(each, finished)]
        if len({self._engine.state_of(each.plan) for each in group}) != 1 or len(group) < 2:
            return group
        control = self._control(group)
        started_s = control.elapsed_s

        def measured(result: ItemResult) -> ItemResult:
            return evolve(result, timings_s=dict(control.timings_s), paused_s=control.paused_s)

        try:
            requests = [request for each in group for request in each.plan.requests]
            with self._engine.following(group[0].plan):
                media = list(self._engine.run_batch(requests, control))
        except RequestCancelledError:
            for each in group:
                finished(measured(ItemResult(id=each.item.id, is_cancelled=True)))
            return []
        except DeadlineExceededError as error:
            for each in group:
                finished(measured(ItemResult(id=each.item.id, error=_failure(error))))
            return []
        except Exception:  # foreign code; whose fault it is, and whether the batch is too large, shows alone
            return group
        peak = control.memory.num_bytes
        for each in group:
            own, plan = [media.pop(0) for _ in each.plan.requests], each.plan
            result = ItemResult(id=each.item.id, peak_memory_bytes=peak)
            if self._is_cancelled(each.item.id):
                result = evolve(result, is_cancelled=True)
            else:
                try:
                    finished_ones = [
                        finish_output(self._manager, plan, index, frames, control, started_s, stays=False)
                        for index, frames in enumerate(own)
                    ]
                    outputs = tuple(_describe(index, output, plan) for index, output in enumerate(finished_ones))
                    result = evolve(result, outputs=outputs)
                except Exception as error:  # an encoder is foreign code
                    result = evolve(result, error=_failure(error))
            finished(measured(result))
        return []

    def _told_cancelled(self, planned: _Planned, finished: Callable[[ItemResult], None]) -> bool:
        is_cancelled = self._is_cancelled(planned.item.id)
        if is_cancelled:
            finished(ItemResult(id=planned.item.id, is_cancelled=True))
        return is_cancelled


def _preview_wish(item: WorkItem) -> PreviewWish | None:
    count, every = item.settings.get("num_previews") or 0, item.settings.get("preview_every")
    try:
        return PreviewWish(count=int(count), every=None if every is None else int(every)) if count or every else None
    except (ValueError, TypeError):
        return None


def _describe(index: int, output: GenerationOutput, plan: ExecutionPlan) -> JobOutput:
    assert output.path is not None
    media_type = _MEDIA_TYPES.guess_type(output.path.name, strict=False)[0]
    return JobOutput(
        index=index,
        kind=output.kind,
        media_type=media_type or "application/octet-stream",
        width=output.width,
        height=output.height,
        num_frames=output.num_frames,
        num_bytes=output.path.stat().st_size,
        seed=output.seed,
        file=output.path.name,
        fps=_fps(plan, index),
        receipt=output.receipt,
    )


def _fps(plan: ExecutionPlan, index: int) -> float | None:
    fps = plan.requests[index].fps
    return float(fps) if fps is not None and plan.kind == "video" else None


def _failure(error: Exception) -> JobError:
    """Return the error of a failed run as a client is told."""
    cause = error.__cause__
    if isinstance(error, OutOfDeviceMemoryError) or _is_out_of_memory(error) or _is_out_of_memory(cause):
        return _job_error(error, "out_of_memory")
    if isinstance(error, DeadlineExceededError):
        return _job_error(error, "deadline_exceeded")
    if isinstance(error, RequestError | ConfigError) and not _is_foreign(error):
        return _job_error(error, "invalid_request")
    if isinstance(error, OutputError) and not _is_foreign(error):
        logger.warning("a result is lost: %s (%s)", error.problem, error.remedy)
        return NOT_WRITTEN
    logger.warning("a run failed", exc_info=error)  # for the operator: the client is told one sentence
    return _job_error(error, "failed")


def _is_foreign(error: SglangError) -> bool:
    """Say whether a foreign exception was translated, of which only its traceback tells more: no request's fault."""
    cause = error.__cause__
    says_so = cause is not None and f" failed: {type(cause).__name__}" in str(error)
    return says_so or DEBUG_HINT in error.remedy


def _is_out_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _job_error(error: Exception, code: str) -> JobError:
    if isinstance(error, SglangError):
        remedy = error.remedy.replace(DEBUG_HINT, "see in the server's log where it failed")
        return JobError(code=code, message=error.problem, remedy=remedy)
    text = str(error).strip().splitlines()
    message = f"the run failed: {type(error).__name__}" + (f": {text[0]}" if text else "")
    return JobError(code=code, message=message, remedy="look into the server's log")
