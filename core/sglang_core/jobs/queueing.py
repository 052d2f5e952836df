"""The jobs that wait: who goes next, which place each has, and who is told of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context

from ..engine.interleaving import Interleaving
from ..engine.request_scheduler import QueueEntry, QueueFullError, RequestScheduler
from .events import EventHub, JobEvent
from .live import LiveJobs
from .records import Job

_TELL_POSITIONS_S = 0.5


class JobQueue:
    """The queue of a server, in its event loop.

    :param wake: called when something may run that could not before.
    """

    def __init__(
        self, live: LiveJobs, hub: EventHub, scheduler: RequestScheduler, *, wake: Callable[[], object]
    ) -> None:
        #: What runs, as far as it matters to what may run in its middle.
        self.interleaving = Interleaving()
        self._live = live
        self._hub = hub
        self._scheduler = scheduler
        self._wake = wake
        #: Accepted, but not on record yet; and whether that worked.
        self._unwritten: dict[str, tuple[Job, asyncio.Future[bool]]] = {}
        #: Of every job that waits or runs.
        self._entries: dict[str, QueueEntry] = {}
        #: Jobs that did not fit into the queue, though they were accepted once.
        self._overflow: list[QueueEntry] = []
        self._telling: asyncio.TimerHandle | None = None

    def reserve(self, entry: QueueEntry, job: Job) -> "asyncio.Future[bool]":
        """Queue a job that is about to be put on record; the result says whether it is.

        Until then nothing of it is told or kept. The engine may begin with it meanwhile, unless it has an idempotency
        key: that may turn out to be the one of another job.

        :raises QueueFullError: if there is no room.
        """
        self._scheduler.add(entry, time.time())
        self._entries[entry.id] = entry
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._unwritten[entry.id] = job, written
        written.add_done_callback(lambda _: self._unwritten.pop(entry.id, None))
        self._wake()
        return written

    async def is_written(self, job_id: str) -> bool:
        """Wait until it is known whether a job is on record."""
        if job_id not in self._unwritten:
            return True
        _, written = self._unwritten[job_id]
        return await asyncio.shield(written)  # others wait for it too

    async def job_to_run(self, job_id: str) -> Job | None:
        """Return the job that the engine may begin with; ``None`` if there is none any more."""
        if job_id in self._unwritten:
            job, _ = self._unwritten[job_id]
            if job.idempotency_key is None:
                return job
        return self._live.current(job_id) if await self.is_written(job_id) else None

    def readmit(self, entry: QueueEntry) -> None:
        """Queue a job that was accepted before, also where the queue is full now."""
        self._entries[entry.id] = entry
        self._overflow.append(entry)
        self._refill()
        self._wake()
        self._tell_positions()

    def withdraw(self, job_id: str) -> None:
        """Take a job out of the queue."""
        self._entries.pop(job_id, None)
        self._scheduler.remove(job_id)
        self._overflow = [entry for entry in self._overflow if entry.id != job_id]
        self._refill()
        self._tell_positions()

    def entry(self, job_id: str) -> QueueEntry | None:
        """Return the entry of a job that waits or runs."""
        return self._entries.get(job_id)

    def forget(self, job_id: str) -> None:
        """Drop the entry of a job that ran and is over."""
        self._entries.pop(job_id, None)

    def _refill(self) -> None:
        while self._overflow:
            try:
                self._scheduler.add(self._overflow[0], time.time())
            except QueueFullError:
                return
            del self._overflow[0]

    def next(self, max_batch: int, *, is_interjected: bool = False) -> Sequence[QueueEntry]:
        """Take what runs next: one entry, or compatible ones.

        :param is_interjected: what may run in the middle of the work that runs.
        """
        entries = self._scheduler.pop(time.time(), max_batch, self.interleaving.room if is_interjected else None)
        if entries:
            self._refill()
            self._tell_positions()
        return entries

    def hold_s(self, max_batch: int, delay_s: float, *, is_interjected: bool = False) -> float:
        """Return for how long what :meth:`next` would give should wait for company yet."""
        room = self.interleaving.room if is_interjected else None
        return self._scheduler.hold_s(time.time(), max_batch, delay_s, room)

    def finished(self, entry: QueueEntry, seconds: float | None = None) -> None:
        """Note that an entry runs no longer, and what it took if it came to its end."""
        self._scheduler.finished(entry, seconds)

    def queued_event(self, job: Job) -> JobEvent:
        """Return what a listener of a queued job is told."""
        return JobEvent(kind="queued", job=job, queue_position=self.position(job.id), wait_s=self.wait_s(job.id))

    def position(self, job_id: str) -> int | None:
        """Return how many jobs go before this one; ``None`` if it is not queued."""
        place = self._scheduler.position(job_id)
        if place is None:
            places = [entry.id for entry in self._overflow]
            place = len(self._scheduler) + places.index(job_id) if job_id in places else None
        return place

    def wait_s(self, job_id: str) -> float | None:
        """Return about how long a job will wait yet; ``None`` where that is not known."""
        return self._scheduler.wait_s(job_id, time.time(), self.interleaving.room)

    def _tell_positions(self) -> None:
        """Tell everyone who listens to a queued job its new place, soon, and once for all changes until then."""
        if self._telling is None:
            # In no context: that of the request which happens to move the queue is no business of other jobs.
            self._telling = asyncio.get_running_loop().call_later(
                _TELL_POSITIONS_S, self._tell_positions_now, context=Context()
            )

    def _tell_positions_now(self) -> None:
        self._telling = None
        for job_id in self._hub.listened:
            job = self._live.current(job_id)
            if job is not None and job.status == "queued":
                self._hub.publish(self.queued_event(job))

    def close(self) -> None:
        """Tell nobody any more."""
        if self._telling is not None:
            self._telling.cancel()
