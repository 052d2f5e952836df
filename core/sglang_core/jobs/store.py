"""What a job store is to the host."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from attrs import frozen

from ..registry import Availability

if TYPE_CHECKING:
    from .records import Job, JobStatus


@frozen(kw_only=True)
class JobQuery:
    """Which jobs to list. ``after`` is the id of the last job of the page before."""

    kind: Literal["image", "video"] | None = None
    owner: str | None = None
    statuses: "Collection[JobStatus]" = ()
    after: str | None = None
    limit: int = 20
    order: Literal["asc", "desc"] = "desc"


class OpenJobStore(Protocol):
    """An open job store. Every method may be called from any thread; each is one transaction.

    What a method of a durable store has returned survives the sudden end of the process (``kill -9``); it survives the
    loss of power once :meth:`flush` was called and has returned. The two are apart because writing takes
    microseconds and waiting for a disk milliseconds, for which many jobs can wait together.
    """

    @property
    def identity(self) -> str | None:
        """Return a random name that the store got when it was made; ``None`` for one that is not durable."""

    def create(self, job: "Job") -> "Job":
        """Keep a new job. If its owner has used its idempotency key before, return that job and keep nothing.

        :raises OutputError: if it cannot be written (a full disk); the job does not exist then.
        """

    def get(self, job_id: str) -> "Job | None":
        """Return a job, or ``None`` if there is none of that id."""

    def find(self, owner: str | None, idempotency_key: str) -> "Job | None":
        """Return the job for which its owner used this idempotency key."""

    def change(self, job_id: str, change: "Callable[[Job], Job]") -> "Job | None":
        """Read a job, apply ``change``, and keep the result, all in one transaction; return it.

        ``change`` may return its argument to leave the job as it is. Returns ``None`` if there is no such job.

        :raises ValueError: if the new status may not follow the old one (``NEXT_STATES``); nothing is kept then.
        :raises OutputError: if it cannot be written.
        """

    def list(self, query: JobQuery) -> "Sequence[Job]":
        """Return a page of jobs by time of creation, those of one time as they came.

        An ``after`` that is unknown, or another owner's, gives an empty page.
        """

    def count(self, statuses: "Collection[JobStatus]") -> int:
        """Return how many jobs are in these states."""

    def delete(self, job_id: str) -> "Job | None":
        """Forget a job and return what it was."""

    def flush(self) -> None:
        """Wait until everything kept so far survives the loss of power. Other calls do not wait for this one.

        :raises OutputError: if the disk refuses.
        """

    def close(self) -> None:
        """Flush, and release files and locks. Closing twice does nothing."""


class JobStore(Protocol):
    """A kind of job store, chosen by ``--job-store``."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def is_durable(self) -> bool:
        """Say whether jobs outlive the process."""

    def probe(self) -> Availability:
        """Say whether this store can work here, without importing anything heavy."""

    def open(self, location: Path) -> OpenJobStore:
        """Open or create the store at ``location``, a folder of its own.

        :raises OutputError: if it cannot be opened, is damaged, or another server has it open; a damaged one is left
            as it is.
        """
