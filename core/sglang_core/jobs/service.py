"""Jobs from their acceptance to their deletion. Everything here runs in the event loop of the server.

A job is on record before :meth:`JobService.submit` returns and reaches exactly one final state, whatever ends in
between: the store refuses every other change, and what was interrupted is found again at the start.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, frozen

from ..engine.batching import batch_key, followed_settings, plan_cost
from ..engine.request_scheduler import QueueEntry, RequestScheduler
from ..errors import ConflictError, OutputError, RequestError, SglangError
from ..options.jobs import JobOptions
from ..planning_types import ExecutionPlan
from ..storage import OpenStorage
from .dispatching import Dispatcher
from .events import EventHub, JobEvent
from .files import JobFiles
from .finishing import Finisher, is_told_early
from .live import LiveJobs
from .records import Job, JobStatus
from .recovery import Recovery
from .settling import STOPPED, back_to_queue
from .store import JobQuery, OpenJobStore
from .sweeping import Housekeeper
from .webhooks import WebhookSender

if TYPE_CHECKING:
    from ..engine.supervisor import Supervisor

logger = logging.getLogger(__name__)

T = TypeVar("T")
_RESTART_S = 1.0


@frozen(kw_only=True)
class JobStatistics:
    """Numbers for operators. ``totals`` counts jobs by final state since the server started."""

    queued: int
    running: int
    totals: Mapping[JobStatus, int]
    waiting_webhooks: int
    #: Jobs with outputs that are still to be uploaded.
    waiting_uploads: int
    #: Why jobs can not be kept at the moment; empty while all is well.
    problem: str


class JobService:
    """Accepts jobs, runs them, and keeps their records and files until they are deleted.

    :param store: closed by :meth:`stop`.
    :param storage: where finished files are uploaded to; it stays open.
    :param replan: plans a request from its settings; raises an ``SglangError`` for what can not be served.
    :param max_batch: most compatible jobs that run together.
    :param batching_delay_s: how long a job waits for company.
    :param is_interleaving: whether small jobs may run in the middle of large ones, where the engine can do that.
    :param request_defaults: settings that jobs have where they do not say otherwise, as they are when a job starts.
    """

    def __init__(
        self,
        *,
        store: OpenJobStore,
        supervisor: "Supervisor",
        scheduler: RequestScheduler,
        storage: OpenStorage | None,
        output_folder: Path,
        input_folder: Path,
        options: JobOptions,
        replan: Callable[[Mapping[str, Any]], ExecutionPlan],
        max_batch: int = 1,
        batching_delay_s: float = 0.0,
        request_defaults: Mapping[str, Any] | None = None,
        is_interleaving: bool = True,
    ) -> None:
        self._options = options
        self._replan = replan
        self._totals: Counter[JobStatus] = Counter()
        self._loops: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._is_stopping = False
        #: Called with each job that has reached its final state, in the event loop: they must be quick.
        self.listeners: list[Callable[[Job], None]] = []
        self._live = LiveJobs(store)
        self._hub = EventHub()
        #: Told each :class:`JobEvent` of every job, in the event loop: they must be quick. The first event of a job
        #: that is submitted comes in the context (:mod:`contextvars`) of who submits it, the others in any.
        self.event_listeners = self._hub.listeners
        self._files = JobFiles(output_folder, input_folder, store.identity)
        self._webhooks = WebhookSender(self._live, options)
        self._finisher = Finisher(
            self._live, self._files, self._hub, self._webhooks, storage, options, self._note_finished
        )
        self._dispatcher = Dispatcher(
            live=self._live,
            hub=self._hub,
            files=self._files,
            finisher=self._finisher,
            supervisor=supervisor,
            scheduler=scheduler,
            options=options,
            max_batch=max_batch,
            batching_delay_s=batching_delay_s,
            request_defaults={} if request_defaults is None else request_defaults,
            is_interleaving=is_interleaving,
        )
        self._housekeeper = Housekeeper(
            self._live,
            self._files,
            self._finisher,
            self._webhooks,
            options,
            has_storage=storage is not None,
            started_at=time.time(),
        )

    async def start(self) -> None:
        """Find what a server before this one left, then begin to run jobs.

        :raises OutputError: if the store cannot be read or the output folder not be written to.
        """
        await asyncio.to_thread(self._files.open)
        await Recovery(self._live, self._files, self._finisher, self._dispatcher, self._options, self._entry).run()
        for run in (self._dispatcher.run, self._webhooks.run, self._housekeeper.run):
            self._loops.append(asyncio.create_task(_run_for_ever(run)))

    async def stop(self, grace_s: float) -> None:
        """Let what runs end within ``grace_s`` seconds. What does not goes back into the queue for the next start.

        On a store that forgets, jobs that are not over fail. Stopping twice does nothing.
        """
        if self._is_stopping:
            return
        self._is_stopping = True
        await self._dispatcher.stop(grace_s)
        for task in (*self._loops, *self._background):
            task.cancel()
        await asyncio.gather(*self._loops, *self._background, return_exceptions=True)
        try:
            await self._settle_unfinished()
        except SglangError as error:
            logger.warning("what is not finished is not on record as such: %s", error.problem)
        self._hub.close()
        await asyncio.to_thread(self._files.close)
        await self._live.close()

    async def _settle_unfinished(self) -> None:
        if not self._live.is_durable:
            for job in self._live.unfinished:
                await self._finisher.end(job.id, "failed", error=STOPPED)
            await self._housekeeper.forget_all()
            return
        for job in self._live.unfinished:
            if job.status == "in_progress" and not job.outputs:  # else its outputs only wait to be uploaded
                await self._live.change(job.id, lambda job: back_to_queue(job, is_counted=False))
        await self._live.flush()

    async def submit(self, job: Job, *, plan: ExecutionPlan | None = None) -> Job:
        """Accept a job. It is on record when this returns, also if its client is gone by then.

        :param plan: what ``replan`` returns for its settings, if the caller has it.
        :returns: the job, or the one for which its idempotency key was used before.
        :raises SglangError: if it can not be served, the queue is full, or it can not be kept; then nothing is kept.
        :raises ConflictError: if the key was used for something else (another ``request_digest``).
        """
        if self._is_stopping:
            raise OutputError("the server is stopping and takes no more jobs", "send the request again in a moment")
        if job.webhook_url is not None:
            self._webhooks.check(job.webhook_url)
        return await self._whole(self._submit(job, plan))

    async def _submit(self, job: Job, plan: ExecutionPlan | None) -> Job:
        if job.idempotency_key is not None:
            before = await self._live.find(job.owner, job.idempotency_key)
            if before is not None:
                return _same_request(before, job)
        entry = await self._entry(job, plan)
        written = self._dispatcher.queue.reserve(entry, job)
        is_kept = False
        try:
            kept = await self._live.create(job)
            if kept.id != job.id:  # another request with the key was faster
                return _same_request(kept, job)
            if is_told_early(job):
                await self._live.flush()
            is_kept = True
        finally:
            if not is_kept:
                self._dispatcher.queue.withdraw(job.id)
                if self._live.current(job.id) is not None:  # it was written, but the disk failed to confirm it
                    with contextlib.suppress(OutputError):
                        await self._live.delete(job.id)
            written.set_result(is_kept)
        if self._hub.is_followed(kept.id):
            self._hub.publish(self._dispatcher.queue.queued_event(kept))
        return self._live.current(job.id) or kept

    async def _entry(self, job: Job, plan: ExecutionPlan | None = None) -> QueueEntry:
        if plan is None:
            plan = await asyncio.to_thread(self._replan, job.settings)
        return QueueEntry(
            id=job.id,
            owner=job.owner,
            priority=job.priority,
            cost=plan_cost(plan),
            batch_key=batch_key(plan) if self._dispatcher.is_batching else None,
            state_key=followed_settings(plan),
            created_at=job.created_at,
        )

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """Return a job with its progress; ``None`` if there is none, or it belongs to somebody else than ``owner``."""
        job = await self._live.get(job_id)
        return None if job is None or (owner is not None and job.owner != owner) else job

    async def list(self, query: JobQuery) -> Sequence[Job]:
        """Return a page of jobs."""
        return await self._live.list(query)

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job: at once where it is queued, else at the next step. One that is over stays as it is.

        :raises OutputError: if that can not be kept; the job goes on then.
        """
        return await self._whole(self._cancel(job_id))

    async def _cancel(self, job_id: str) -> Job | None:
        job = await self._live.get(job_id)
        if job is None or job.is_over:
            return job
        if job.status == "queued":
            job = await self._finisher.end(job_id, "cancelled", only_from="queued", is_patient=False)
            if job is None or job.is_over:
                self._dispatcher.queue.withdraw(job_id)
                return job
        job = await self._live.change(job_id, _to_be_cancelled)  # it runs, perhaps since a moment ago
        self._dispatcher.stop_running(job_id)
        return job

    async def delete(self, job_id: str) -> Job | None:
        """Forget a job and remove its files, here and in the storage; one that is not over is cancelled first.

        :returns: what it was, ``None`` if there is none.
        :raises SglangError: if something can not be removed; the job stays then and can be deleted again.
        """
        return await self._whole(self._delete(job_id))

    async def _delete(self, job_id: str) -> Job | None:
        job = await self._cancel(job_id)
        if job is None:
            return None
        if not job.is_over:
            await self.wait(job_id)
        deleted = await self._housekeeper.delete([job_id])
        return deleted[0] if deleted else job

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait until a job is over and return it; after ``timeout_s`` seconds return it as it is.

        :raises RequestError: if there is none.
        """
        with self._hub.end(job_id) as end:
            job = await self._known(job_id)
            if not job.is_over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        job = await end or job
        return job if job.is_over else await self._live.get(job_id) or job

    async def events(self, job_id: str) -> AsyncIterator[JobEvent]:
        """Yield what happens to a job, first how it is, until it is over or the server stops.

        :raises RequestError: if there is none.
        """
        with self._hub.mailbox(job_id) as mailbox:
            job = await self._known(job_id)
            if job.is_over:
                yield JobEvent(kind="finished", job=job)
                return
            yield (
                self._dispatcher.queue.queued_event(job)
                if job.status == "queued"
                else JobEvent(kind="started", job=job)
            )
            async for event in mailbox:
                yield event

    async def _known(self, job_id: str) -> Job:
        job = await self._live.get(job_id)
        if job is None:
            raise RequestError(f"there is no job {job_id!r}", "see the list of jobs")
        return job

    def queue_position(self, job_id: str) -> int | None:
        """Return how many jobs go before this one; ``None`` if it is not queued."""
        return self._dispatcher.queue.position(job_id)

    def wait_s(self, job_id: str) -> float | None:
        """Return about how long a queued job will wait yet; ``None`` where that is not known."""
        return self._dispatcher.queue.wait_s(job_id)

    def content_path(self, job: Job, index: int) -> Path | None:
        """Return the local file of an output; ``None`` if it is uploaded, or not here (any more)."""
        output = next((output for output in job.outputs if output.index == index), None)
        return None if output is None else self._files.output_path(output)

    def statistics(self) -> JobStatistics:
        """Return numbers for operators."""
        statuses = Counter(job.status for job in self._live.unfinished)
        return JobStatistics(
            queued=statuses["queued"],
            running=statuses["in_progress"] + statuses["cancelling"],
            totals=dict(self._totals),
            waiting_webhooks=self._webhooks.num_waiting,
            waiting_uploads=self._housekeeper.num_unuploaded,
            problem=self._finisher.problem,
        )

    def _note_finished(self, job: Job) -> None:
        self._totals[job.status] += 1
        self._housekeeper.note(job)
        for listener in self.listeners:
            try:
                listener(job)
            except Exception:  # a plugin's code; the job is over all the same
                logger.warning("a listener failed on job %s", job.id, exc_info=True)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end what must not stop half-way, also if the caller is cancelled: its client may hang up."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._whole_ended)
        return await asyncio.shield(task)

    def _whole_ended(self, task: "asyncio.Task[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits is told; if nobody does there is nobody to tell


async def _run_for_ever(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop of the service, again if it fails: a fault in one job must not end the service of all others."""
    while True:
        try:
            await run()
        except Exception:  # jobs call plugins: stores, storages, planning
            logger.exception("a part of the job service failed, and is started again")
            await asyncio.sleep(_RESTART_S)


def _to_be_cancelled(job: Job) -> Job:
    return evolve(job, status="cancelling") if job.status == "in_progress" else job


def _same_request(before: Job, job: Job) -> Job:
    """Return the job of before for a repeated request.

    :raises ConflictError: if the two ask for different things.
    """
    if job.request_digest is not None and before.request_digest not in (None, job.request_digest):
        raise ConflictError(
            f"the idempotency key {job.idempotency_key!r} was used before for another request ({before.id})",
            "use a new key for a new request",
        )
    return before
