"""From the queue to the engine and back: what runs next, and what becomes of it."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from ..engine.request_scheduler import QueueEntry, RequestScheduler
from ..engine.work import ItemEvent, ItemResult, Work, WorkItem
from ..errors import OutputError
from ..options.jobs import JobOptions
from .events import EventHub, JobEvent
from .files import JobFiles
from .finishing import Finisher
from .live import LiveJobs
from .queueing import JobQueue
from .records import Job, JobError, JobOutput
from .settling import Settler

if TYPE_CHECKING:
    from ..engine.supervisor import Supervisor

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 2.0
_CANCEL_AGAIN_S = 0.25
_STOP_S = 5.0
_DISK_PAUSE_S = 1.0
_QUIET_POLL_S = 0.05
_LEAVE_AFTER_S = 0.05
_MOST_EARLY_EVENTS = 20


class Dispatcher:
    """Runs queued jobs on the supervisor's engine, one work at a time, whenever it is ready.

    While a work runs, what is small next to it may run in its middle.

    :param is_interleaving: whether that is wanted.
    """

    def __init__(
        self,
        *,
        live: LiveJobs,
        hub: EventHub,
        files: JobFiles,
        finisher: Finisher,
        supervisor: "Supervisor",
        scheduler: RequestScheduler,
        options: JobOptions,
        max_batch: int,
        batching_delay_s: float,
        request_defaults: Mapping[str, Any],
        is_interleaving: bool,
    ) -> None:
        self._live = live
        self._hub = hub
        self._files = files
        self._finisher = finisher
        self._supervisor = supervisor
        self._settler = Settler(live, finisher, options)
        self._max_batch = max_batch
        self._batching_delay_s = batching_delay_s
        self._request_defaults = request_defaults
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._is_interleaving = is_interleaving
        self.queue = JobQueue(live, hub, scheduler, wake=self._wake.set)
        self._running: set[str] = set()
        #: When the engine began the jobs that run, as ``time.monotonic`` tells.
        self._begun_at: dict[str, float] = {}
        #: Those of them that wait for a boundary of another, or run in its middle.
        self._interjected: set[str] = set()
        #: What the engine says of jobs before it is on record that they run.
        self._early_events: dict[str, deque[ItemEvent]] = {}
        self._progress_kept_at: dict[str, float] = {}
        #: The folders of works that are over, and whether nobody can write to them any more.
        self._left: dict[Path, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        supervisor.on_state(lambda *_: self._wake.set())

    @property
    def is_batching(self) -> bool:
        """Say whether jobs may run together."""
        return self._max_batch > 1

    @property
    def running(self) -> frozenset[str]:
        """Return the jobs that the engine works on."""
        return frozenset(self._running)

    def stop_running(self, job_id: str) -> None:
        """Have the engine stop a job at its next boundary, also if its run is only about to begin."""
        if job_id in self._running:
            self._spawn(self._cancel(job_id))

    async def _cancel(self, job_id: str) -> None:
        while job_id in self._running:  # the engine knows nothing of it before the run has begun
            self._supervisor.cancel(job_id)
            await asyncio.sleep(_CANCEL_AGAIN_S)

    async def run(self) -> None:
        """Run what is queued, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while not self._is_stopping and self._supervisor.state == "ready":
                entries = await self._next()
                if not entries:
                    break
                await self._run_with_interruptions(entries)

    async def _next(self) -> Sequence[QueueEntry]:
        """Return what runs next: one entry, or compatible ones."""
        while (hold_s := self.queue.hold_s(self._max_batch, self._batching_delay_s)) > 0:
            await self._woken(hold_s)
        return self.queue.next(self._max_batch)

    async def _woken(self, timeout_s: float | None) -> None:
        """Wait until something may run that could not before, or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        self._wake.clear()

    async def _run_with_interruptions(self, entries: Sequence[QueueEntry]) -> None:
        """Run entries, and while they run small ones in their middle."""
        run = asyncio.create_task(self._run(entries))
        run.add_done_callback(lambda _: self._wake.set())
        if self._is_interleaving and self._supervisor.can_interleave:
            self.queue.interleaving.begin(entries, time.monotonic())
        try:
            while not run.done():
                await self._woken(await self._interrupt())
        finally:
            self.queue.interleaving.end()
            if not run.done():
                run.cancel()
                await asyncio.wait({run})
        run.result()

    async def _interrupt(self) -> float | None:
        """Run what may run in the middle of what runs, if there is something.

        :returns: after how many seconds to try again, ``None``: when something new comes.
        """
        if self._is_stopping or self._supervisor.state != "ready":
            return None
        pause_s = self.queue.interleaving.pause_s(time.monotonic())
        pause_s = pause_s or self.queue.hold_s(self._max_batch, self._batching_delay_s, is_interjected=True)
        if pause_s > 0:
            return pause_s
        entries = self.queue.next(self._max_batch, is_interjected=True)
        if not entries:
            return None
        try:
            await self._run(entries, is_interjected=True)
        except Exception:  # a fault, which must not take what runs around it along
            logger.exception("jobs in the middle of another could not be run")
        return 0.0

    async def _run(self, entries: Sequence[QueueEntry], *, is_interjected: bool = False) -> None:
        try:
            await self._run_work(entries, is_interjected=is_interjected)
        finally:
            for entry in entries:  # also what a fault kept from running
                self.queue.finished(entry)

    async def _run_work(self, entries: Sequence[QueueEntry], *, is_interjected: bool) -> None:
        try:
            folder = self._files.spare_work_folder()
            if folder is None:
                folder = await asyncio.to_thread(self._files.make_work_folder)
        except OutputError as error:  # a full disk: the jobs stay queued
            logger.warning("the next jobs can not run, trying again: %s\nTry: %s", error.problem, error.remedy)
            self._finisher.problem = error.problem
            for entry in entries:
                self.queue.finished(entry)
                if self.queue.entry(entry.id) is not None:
                    self.queue.readmit(entry)
            await asyncio.sleep(_DISK_PAUSE_S)
            return
        jobs = [job for entry in entries if (job := await self.queue.job_to_run(entry.id)) is not None]
        ids = {job.id for job in jobs}
        self._running |= ids
        if is_interjected:
            self._interjected |= ids
        try:
            results = await self._results(jobs, folder, is_interjected=is_interjected)
        finally:
            self._running -= ids
            self._interjected -= ids
            ended = time.monotonic()
            began = min((self._begun_at.pop(job_id, ended) for job_id in ids), default=ended)
        if is_interjected:
            self.queue.interleaving.interrupted(began, ended)
        ran_s = ended - began - max((result.paused_s for result in results), default=0.0)
        completed = {result.id for result in results if result.outputs and result.error is None}
        for entry in entries:
            self.queue.finished(entry, max(0.0, ran_s) / len(results) if entry.id in completed else None)
        # While the engine goes on with the next.
        self._spawn(self._settle_all(results, folder, was_interjected=is_interjected))

    async def _begin(self, job_id: str) -> None:
        """Keep that a job runs, and tell it, unless it is over."""
        now = time.time()

        def start(job: Job) -> Job:
            if job.status != "queued":
                return job
            return evolve(job, status="in_progress", started_at=now, attempts=job.attempts + 1, stage=None)

        try:
            job = await self._finisher.keep(job_id, start) if await self.queue.is_written(job_id) else None
        finally:
            early_events = self._early_events.pop(job_id)
        if job is None or job.is_over:  # it is not on record after all, or it was cancelled meanwhile
            self.stop_running(job_id)
            return
        self._hub.publish(JobEvent(kind="started", job=job))
        for event in early_events:
            self._tell(event)

    async def _results(self, jobs: Sequence[Job], folder: Path, *, is_interjected: bool) -> Sequence[ItemResult]:
        """Run jobs on the engine and return how each ended; never raises for one of them.

        The engine begins while it is being kept that they are there and run; no job ends before that is on record.
        """
        if not jobs:
            return ()
        items = [WorkItem(id=job.id, settings={**self._request_defaults, **job.settings}) for job in jobs]
        self._early_events |= {job.id: deque(maxlen=_MOST_EARLY_EVENTS) for job in jobs}
        beginning = asyncio.gather(*(self._begin(job.id) for job in jobs))
        try:
            work = Work(items=tuple(items), folder=folder)
            results = await self._supervisor.run(work, self._take_event, is_interjected=is_interjected)
        except asyncio.CancelledError:
            beginning.cancel()
            raise
        except Exception as error:  # a fault of the engine must not end the server's other jobs
            logger.exception("the engine failed")
            failure = JobError(code="crashed", message=f"the engine failed: {error}", remedy="see the server's log")
            results = tuple(ItemResult(id=item.id, error=failure, is_lost=True) for item in items)
        await beginning
        return results

    def _take_event(self, event: ItemEvent) -> None:
        if event.id not in self._begun_at and event.id in self._running:
            self._begun_at[event.id] = time.monotonic()
            if event.id in self._interjected:  # until now it waited
                self._spawn(self._keep_begin(event.id, time.time()))
        self.queue.interleaving.advance(event.id, event.progress)
        if event.id in self._early_events:
            self._early_events[event.id].append(event)
        else:
            self._tell(event)

    def _tell(self, event: ItemEvent) -> None:
        job = self._live.advance(event.id, event.stage, event.progress)
        if job is None:
            return
        if self._hub.is_followed(event.id):
            self._hub.publish(
                JobEvent(
                    kind="progress" if event.preview_png is None else "preview",
                    job=job,
                    stage=event.stage,
                    index=event.index,
                    total=event.total,
                    preview_png=event.preview_png,
                )
            )
        now = time.monotonic()
        if now - self._progress_kept_at.setdefault(event.id, now) >= PROGRESS_INTERVAL_S:
            self._progress_kept_at[event.id] = now
            self._spawn(self._keep_progress(event.id))

    async def _keep_progress(self, job_id: str) -> None:
        with contextlib.suppress(OutputError):  # it is in memory, and the next one comes soon
            await self._live.change(job_id, lambda job: job)

    async def _keep_begin(self, job_id: str, now: float) -> None:
        with contextlib.suppress(OutputError):  # what is on record is when the engine was asked
            await self._live.change(job_id, lambda job: evolve(job, started_at=now) if _runs(job) else job)

    async def _settle_all(self, results: Sequence[ItemResult], folder: Path, *, was_interjected: bool) -> None:
        try:
            await asyncio.gather(*(self._settle(result, folder, was_interjected) for result in results))
        finally:
            self._left[folder] = not any(result.is_lost for result in results)
            if len(self._left) == 1:
                self._spawn(self._leave_folders())

    async def _leave_folders(self) -> None:
        await asyncio.sleep(_LEAVE_AFTER_S)  # the client is being answered: its thread shall not wait for this one
        left, self._left = self._left, {}
        await asyncio.to_thread(self._files.leave_work_folders, left)

    async def _settle(self, result: ItemResult, folder: Path, was_interjected: bool) -> None:
        self._progress_kept_at.pop(result.id, None)
        job = self._live.current(result.id)
        if job is not None:
            job = await self._settler.settle(
                job, result, folder, is_stopping=self._is_stopping, was_interjected=was_interjected
            )
        entry = self.queue.entry(result.id)
        if job is not None and job.status == "queued" and entry is not None:
            # Alone: others need not share the fate of one that kills the engine.
            self.queue.readmit(evolve(entry, batch_key=None, runs_alone=True))
            self._hub.publish(self.queue.queued_event(job))
        else:
            self.queue.forget(result.id)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run a coroutine beside; :meth:`stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)

    def finish_later(self, job_id: str, outputs: Sequence[JobOutput]) -> None:
        """End a job whose outputs a server before this one made."""
        self._spawn(self._finisher.complete_with(job_id, outputs))

    def _spawned_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a job could not be brought to its end", exc_info=task.exception())

    async def stop(self, grace_s: float) -> None:
        """Begin nothing more; let what runs end within ``grace_s`` seconds, and stop the rest at its next boundary."""
        self._is_stopping = True
        self.queue.close()
        await self._quiet(grace_s)
        for job_id in self._running:
            self._supervisor.cancel(job_id)
        await self._quiet(_STOP_S)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _quiet(self, limit_s: float) -> None:
        """Wait until nothing runs and nothing is being brought to its end."""
        deadline = time.monotonic() + limit_s
        while (self._running or self._tasks) and (left_s := deadline - time.monotonic()) > 0:
            pause_s = min(left_s, _QUIET_POLL_S)
            await (asyncio.wait(self._tasks, timeout=pause_s) if self._tasks else asyncio.sleep(pause_s))


def _runs(job: Job) -> bool:
    return job.status in ("in_progress", "cancelling")
