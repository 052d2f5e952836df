"""The jobs that are not over, in memory, before the store, whose methods block and therefore run in threads."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import evolve

from .records import Job, JobStatus
from .store import JobQuery, OpenJobStore
from .threads import SerialThread

T = TypeVar("T")
UNFINISHED: frozenset[JobStatus] = frozenset({"queued", "in_progress", "cancelling"})


class LiveJobs:
    """The view of a store that the event loop may use.

    What is not over is kept in memory, so that polling costs nothing, and there alone its progress is always true: it
    reaches the store with the next change. Every other word on a job is in the store before anyone is told.
    """

    def __init__(self, store: OpenJobStore) -> None:
        self._store = store
        self._jobs: dict[str, Job] = {}
        # One thread: the store has one writer anyway, and the order of changes is that of the calls.
        self._thread = SerialThread("job-store")
        self._flush_thread = SerialThread("job-store-flush")
        self._next_flush: asyncio.Task[None] | None = None
        self._flush_lock = asyncio.Lock()

    def __getitem__(self, job_id: str) -> Job:
        """Return a job that is not over."""
        return self._jobs[job_id]

    def current(self, job_id: str) -> Job | None:
        """Return a job if it is not over."""
        return self._jobs.get(job_id)

    @property
    def unfinished(self) -> tuple[Job, ...]:
        """Return every job that is not over."""
        return tuple(self._jobs.values())

    @property
    def is_durable(self) -> bool:
        """Say whether jobs outlive the process."""
        return self._store.identity is not None

    @property
    def identity(self) -> str | None:
        """Return the store's name for itself."""
        return self._store.identity

    def adopt(self, job: Job) -> None:
        """Take up an unfinished job of the store."""
        self._jobs[job.id] = job

    async def create(self, job: Job) -> Job:
        """Keep a new job; see :meth:`OpenJobStore.create`."""
        kept = await self._call(lambda: self._store.create(job))
        if kept.id == job.id:
            self._jobs[job.id] = kept
        return self._jobs.get(kept.id, kept)

    async def find(self, owner: str | None, idempotency_key: str) -> Job | None:
        """Return the job of an idempotency key."""
        found = await self._call(lambda: self._store.find(owner, idempotency_key))
        return None if found is None else self._jobs.get(found.id, found)

    async def get(self, job_id: str) -> Job | None:
        """Return a job, from memory where it is not over."""
        return self._jobs.get(job_id) or await self._call(lambda: self._store.get(job_id))

    def find_blocking(self, job_id: str) -> Job | None:
        """Return a job; for use in threads."""
        return self._jobs.get(job_id) or self._store.get(job_id)

    async def list(self, query: JobQuery) -> Sequence[Job]:
        """Return a page of jobs, those that run with their progress."""
        page = await self._call(lambda: self._store.list(query))
        return [job if job.is_over else self._jobs.get(job.id, job) for job in page]

    async def change(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job in the store, and in memory when that has worked; see :meth:`OpenJobStore.change`."""
        live = self._jobs.get(job_id)

        def change_current(job: Job) -> Job:
            return change(job if live is None else evolve(job, progress=live.progress, stage=live.stage))

        changed = await self._call(lambda: self._store.change(job_id, change_current))
        if changed is None or changed.is_over:
            self._jobs.pop(job_id, None)
        elif (now := self._jobs.get(job_id)) is not None and live is not None:
            stage = changed.stage if changed.status != live.status else now.stage
            changed = self._jobs[job_id] = evolve(changed, progress=max(now.progress, changed.progress), stage=stage)
        return changed

    def advance(self, job_id: str, stage: str, progress: float) -> Job | None:
        """Note how far a running job is, in memory; return it, or ``None`` if it does not run."""
        job = self._jobs.get(job_id)
        if job is None or job.status == "queued":
            return None
        job = self._jobs[job_id] = evolve(job, stage=stage, progress=max(job.progress, min(progress, 1.0)))
        return job

    async def delete(self, job_id: str) -> Job | None:
        """Forget a job."""
        self._jobs.pop(job_id, None)
        return await self._call(lambda: self._store.delete(job_id))

    async def flush(self) -> None:
        """Wait until what was kept so far survives the loss of power; all who wait now share one wait for the disk."""
        if self._next_flush is None:
            self._next_flush = asyncio.create_task(self._flush())
        await asyncio.shield(self._next_flush)

    async def _flush(self) -> None:
        async with self._flush_lock:  # who comes while the disk works waits for the next round
            self._next_flush = None
            await self._flush_thread.run(self._store.flush)

    async def close(self) -> None:
        """Close the store."""
        try:
            await self._call(self._store.close)
        finally:
            self._thread.close()
            self._flush_thread.close()

    async def _call(self, function: Callable[[], T]) -> T:
        return await self._thread.run(function)
