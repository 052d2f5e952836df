"""What a server does first: bring the jobs on their way again that one before it did not finish."""

from collections.abc import Awaitable, Callable

from attrs import evolve

from ..engine.request_scheduler import QueueEntry
from ..errors import SglangError
from ..options.jobs import JobOptions
from .dispatching import Dispatcher
from .files import JobFiles
from .finishing import Finisher
from .live import UNFINISHED, LiveJobs
from .records import Job, JobError
from .settling import back_to_queue, interrupted, may_run_again
from .store import JobQuery

_PAGE = 200


class Recovery:
    """Takes up every job of the store that is not over.

    :param entry_of: plans a job; raises an ``SglangError`` if this server can not make it.
    """

    def __init__(
        self,
        live: LiveJobs,
        files: JobFiles,
        finisher: Finisher,
        dispatcher: Dispatcher,
        options: JobOptions,
        entry_of: Callable[[Job], Awaitable[QueueEntry]],
    ) -> None:
        self._live = live
        self._files = files
        self._finisher = finisher
        self._dispatcher = dispatcher
        self._options = options
        self._entry_of = entry_of

    async def run(self) -> None:
        """Take up the jobs in the order they came.

        :raises OutputError: if the store can not be read.
        """
        last: str | None = None
        while True:
            page = await self._live.list(JobQuery(statuses=UNFINISHED, after=last, limit=_PAGE, order="asc"))
            for job in page:
                self._live.adopt(job)
                await self._resume(job)
            if len(page) < _PAGE:
                return
            last = page[-1].id

    async def _resume(self, job: Job) -> None:
        if job.status == "cancelling":
            await self._finisher.end(job.id, "cancelled")
        elif job.status == "in_progress" and job.outputs and self._are_there(job):
            self._dispatcher.finish_later(job.id, job.outputs)
        elif job.status == "in_progress" and not may_run_again(job, self._options):
            await self._finisher.end(job.id, "failed", error=interrupted(job))
        else:
            await self._queue(job)

    async def _queue(self, job: Job) -> None:
        if job.status != "queued":
            await self._live.change(job.id, lambda job: evolve(back_to_queue(job, is_counted=True), outputs=()))
        try:
            entry = await self._entry_of(job)
        except SglangError as error:  # this server has another model or other limits than the one before
            failure = JobError(code="invalid_request", message=error.problem, remedy=error.remedy)
            await self._finisher.end(job.id, "failed", error=failure)
        else:
            self._dispatcher.queue.readmit(entry)

    def _are_there(self, job: Job) -> bool:
        return all(output.url is not None or self._files.output_path(output) for output in job.outputs)
