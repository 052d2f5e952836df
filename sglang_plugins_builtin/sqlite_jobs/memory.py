"""Jobs in the memory of the server."""

import threading
from bisect import insort
from collections.abc import Callable, Collection, Sequence

from sglang_core import ConflictError, Job, JobQuery, JobStatus, check_change


class MemoryJobs:
    """A job store that forgets with its process. One lock makes each method a transaction."""

    identity: str | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        #: Place in the list of each job: its time of creation, then the order they came in.
        self._places: dict[str, tuple[float, int]] = {}
        self._order: list[tuple[float, int, str]] = []
        self._keys: dict[tuple[str | None, str], str] = {}
        self._num_created = 0

    def create(self, job: Job) -> Job:
        """Keep a new job, or return the one that has its idempotency key."""
        with self._lock:
            key = None if job.idempotency_key is None else (job.owner, job.idempotency_key)
            if key is not None and key in self._keys:
                return self._jobs[self._keys[key]]
            if job.id in self._jobs:
                raise ConflictError(f"there is a job {job.id!r} already", "submit it under another id")
            self._num_created += 1
            self._jobs[job.id] = job
            self._places[job.id] = (job.created_at, self._num_created)
            insort(self._order, (*self._places[job.id], job.id))
            if key is not None:
                self._keys[key] = job.id
            return job

    def get(self, job_id: str) -> Job | None:
        """Return a job."""
        return self._jobs.get(job_id)

    def find(self, owner: str | None, idempotency_key: str) -> Job | None:
        """Return the job of an idempotency key."""
        with self._lock:
            job_id = self._keys.get((owner, idempotency_key))
            return None if job_id is None else self._jobs[job_id]

    def change(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Replace a job by what ``change`` makes of it."""
        with self._lock:
            before = self._jobs.get(job_id)
            if before is None:
                return None
            after = change(before)
            check_change(before, after)
            self._jobs[job_id] = after
            return after

    def list(self, query: JobQuery) -> Sequence[Job]:
        """Return a page of jobs."""
        with self._lock:
            order = self._order if query.order == "asc" else list(reversed(self._order))
            if query.after is not None:
                last = self._jobs.get(query.after)
                if last is None or (query.owner is not None and last.owner != query.owner):
                    return []
                place = self._places[query.after]
                is_asc = query.order == "asc"
                order = [entry for entry in order if (entry[:2] > place if is_asc else entry[:2] < place)]
            page: list[Job] = []
            for _, _, job_id in order:
                if len(page) == query.limit:
                    break
                if _matches(self._jobs[job_id], query):
                    page.append(self._jobs[job_id])
            return page

    def count(self, statuses: Collection[JobStatus]) -> int:
        """Return how many jobs are in these states."""
        with self._lock:
            return sum(job.status in statuses for job in self._jobs.values())

    def delete(self, job_id: str) -> Job | None:
        """Forget a job."""
        with self._lock:
            job = self._jobs.pop(job_id, None)
            if job is None:
                return None
            self._order.remove((*self._places.pop(job_id), job_id))
            if job.idempotency_key is not None:
                del self._keys[job.owner, job.idempotency_key]
            return job

    def flush(self) -> None:
        """Do nothing: memory does not survive."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _matches(job: Job, query: JobQuery) -> bool:
    return (
        (query.kind is None or job.kind == query.kind)
        and (query.owner is None or job.owner == query.owner)
        and (not query.statuses or job.status in query.statuses)
    )
