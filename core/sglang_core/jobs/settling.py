"""What becomes of a job when its run has ended, or was interrupted."""

from pathlib import Path

from attrs import evolve

from ..engine.work import ItemResult
from ..options.jobs import JobOptions
from .finishing import Finisher
from .live import LiveJobs
from .records import Job, JobError

STOPPED = JobError(code="stopped", message="the server was stopped", remedy="send the request again")
_NO_OUTPUT = JobError(code="failed", message="the run made no output", remedy="see the server's log")


class Settler:
    """Brings a job that ran to its final state, or makes it wait for another run."""

    def __init__(self, live: LiveJobs, finisher: Finisher, options: JobOptions) -> None:
        self._live = live
        self._finisher = finisher
        self._options = options

    async def settle(
        self, job: Job, result: ItemResult, folder: Path, *, is_stopping: bool, was_interjected: bool = False
    ) -> Job | None:
        """Act on the result of a run whose outputs are in ``folder``; return the job unless it is over.

        :param is_stopping: what was stopped together with the server waits for the next one.
        :param was_interjected: what did not fit into memory beside another waits to be alone.
        """
        is_stopped = is_stopping and job.status == "in_progress" and (result.is_lost or result.is_cancelled)
        if is_stopped and self._live.is_durable:
            await self._put_back(job.id, is_counted=False)
        elif is_stopped:
            await self._finisher.end(job.id, "failed", error=STOPPED, result=result)
        elif result.is_lost:
            await self._requeue_or_fail(job, result)
        elif result.is_cancelled:
            await self._finisher.end(job.id, "cancelled", result=result)
        elif was_interjected and result.error is not None and result.error.code == "out_of_memory":
            await self._put_back(job.id, is_counted=False)
        elif result.error is not None or not result.outputs:
            await self._finisher.end(job.id, "failed", error=result.error or _NO_OUTPUT, result=result)
        else:
            await self._finisher.complete(job.id, result, folder)
        return self._live.current(job.id)

    async def _requeue_or_fail(self, job: Job, result: ItemResult) -> None:
        """Give a job whose run was lost another attempt, or fail it with the reason.

        A run that had not begun was no attempt: it failed through no fault of the job.
        """
        if job.status == "cancelling":
            await self._finisher.end(job.id, "cancelled", result=result)
        elif may_run_again(job, self._options) or not result.has_begun:
            await self._put_back(job.id, is_counted=result.has_begun)
        else:
            await self._finisher.end(job.id, "failed", error=interrupted(job, result.error), result=result)

    async def _put_back(self, job_id: str, *, is_counted: bool) -> None:
        job = await self._finisher.keep(job_id, lambda job: back_to_queue(job, is_counted=is_counted))
        if job is not None and job.status == "cancelling":
            await self._finisher.end(job_id, "cancelled")


def may_run_again(job: Job, options: JobOptions) -> bool:
    """Say whether a job whose run was interrupted gets another attempt."""
    return options.on_interrupted == "requeue" and job.attempts < options.max_attempts


def back_to_queue(job: Job, *, is_counted: bool) -> Job:
    """Return a running job as it waits again; ``is_counted`` says whether its run was an attempt."""
    if job.status != "in_progress":
        return job
    attempts = job.attempts if is_counted else max(0, job.attempts - 1)
    return evolve(job, status="queued", attempts=attempts, started_at=None, stage=None)


def interrupted(job: Job, error: JobError | None = None) -> JobError:
    """Return why a job failed whose run was interrupted for the last time."""
    tries = f" (attempt {job.attempts})" if job.attempts > 1 else ""
    if error is None:
        message = f"the server ended while the job ran{tries}"
        return JobError(code="interrupted", message=message, remedy="send the request again")
    return evolve(error, message=f"{error.message}{tries}")
