"""Keeping house: what is too old or too much goes, uploads that failed are tried again, stray files are removed."""

import asyncio
import logging
import time
from collections.abc import Sequence

from attrs import evolve, frozen

from ..errors import SglangError
from ..options.jobs import JobOptions
from .files import JobFiles
from .finishing import Finisher
from .live import UNFINISHED, LiveJobs
from .records import TERMINAL, Job
from .store import JobQuery
from .webhooks import WebhookSender

logger = logging.getLogger(__name__)

TICK_S = 5.0
SWEEP_INTERVAL_S = 3600.0
#: Uploads of requests are this old before they count as forgotten.
_UPLOAD_AGE_S = 3600.0
_PAGE = 200
_FIRST_UPLOAD_RETRY_S, _LAST_UPLOAD_RETRY_S = 30.0, 1800.0


@frozen
class _Finished:
    """What retention needs to know of a job that is over."""

    completed_at: float
    expires_at: float | None
    num_bytes: int


class Housekeeper:
    """Looks after the jobs that are over. It keeps a line on each in memory, read from the store at the start.

    :param started_at: when this server began, in seconds since the epoch; uploads that are older belong to a job, or to
        nobody.
    """

    def __init__(
        self,
        live: LiveJobs,
        files: JobFiles,
        finisher: Finisher,
        webhooks: WebhookSender,
        options: JobOptions,
        *,
        has_storage: bool,
        started_at: float,
    ) -> None:
        self._live = live
        self._files = files
        self._finisher = finisher
        self._webhooks = webhooks
        self._options = options
        self._has_storage = has_storage
        self._started_at = started_at
        self._finished: dict[str, _Finished] = {}
        #: Jobs with outputs that are to be uploaded.
        self._unuploaded: set[str] = set()
        self._upload_delay_s = _FIRST_UPLOAD_RETRY_S
        self._next_upload_at = 0.0
        self._next_sweep_at = 0.0
        #: Whether anything can expire: by the options, or by a promise of earlier ones.
        self._may_expire = options.retention_s is not None or options.retention_bytes is not None
        self._is_whole = False

    @property
    def num_unuploaded(self) -> int:
        """Return how many jobs have outputs whose upload failed so far."""
        return len(self._unuploaded)

    def note(self, job: Job) -> None:
        """Take notice of a job that is over, or has changed since."""
        local_bytes = sum(output.num_bytes for output in job.outputs if output.file is not None)
        self._finished[job.id] = _Finished(job.completed_at or job.created_at, job.expires_at, local_bytes)
        self._may_expire = self._may_expire or job.expires_at is not None
        if self._has_storage and any(output.url is None and output.file is not None for output in job.outputs):
            self._unuploaded.add(job.id)
            self._next_upload_at = self._next_upload_at or time.time() + self._upload_delay_s
        else:
            self._unuploaded.discard(job.id)

    def forget(self, job_id: str) -> None:
        """Take notice that a job was deleted."""
        self._finished.pop(job_id, None)
        self._unuploaded.discard(job_id)

    async def run(self) -> None:
        """Read what there is, then keep house, until cancelled."""
        while True:
            try:
                await self._tick()
            except SglangError as error:
                logger.warning("old jobs could not be looked after, trying again: %s", error.problem)
            await asyncio.sleep(TICK_S)

    async def _tick(self) -> None:
        if not self._is_whole:
            await self._read_all()
        now = time.time()
        if now >= self._next_sweep_at:
            await self.sweep(min(now - _UPLOAD_AGE_S, self._started_at) if self._next_sweep_at else self._started_at)
            self._next_sweep_at = now + SWEEP_INTERVAL_S
        await self.apply_retention()
        if self._unuploaded and now >= self._next_upload_at:
            await self.upload_again()

    async def _read_all(self) -> None:
        """Look at every job that is over: for retention, uploads and webhooks that a restart interrupted."""
        last: str | None = None
        while True:
            query = JobQuery(statuses=TERMINAL, after=last, limit=_PAGE, order="asc")
            page = await self._live.list(query)
            for job in page:
                if job.id not in self._finished:
                    self.note(job)
                    self._webhooks.add(job)
            if len(page) < _PAGE:
                break
            last = page[-1].id
        self._is_whole = True

    async def sweep(self, older_than: float) -> None:
        """Remove files that belong to no job."""
        removed = await asyncio.to_thread(self._files.sweep, self._live.find_blocking, older_than)
        if removed:
            logger.info("removed %d files that belong to no job", len(removed))

    async def apply_retention(self) -> None:
        """Delete what has expired, then the oldest while the rest takes too much room."""
        if not self._finished or not self._may_expire:
            return
        # in a thread: there may be very many
        due = await asyncio.to_thread(self._expired, list(self._finished.items()), time.time())
        for start in range(0, len(due), _PAGE):
            await self.delete(due[start : start + _PAGE])

    def _expired(self, finished_jobs: Sequence[tuple[str, _Finished]], now: float) -> list[str]:
        """Return the jobs that are kept no longer, the oldest first."""
        retention_s, limit_bytes = self._options.retention_s, self._options.retention_bytes
        by_age = sorted(finished_jobs, key=lambda item: item[1].completed_at)
        total = sum(finished.num_bytes for _, finished in finished_jobs)
        due = []
        for job_id, finished in by_age:
            ends_at = finished.expires_at
            if ends_at is None and retention_s is not None:
                ends_at = finished.completed_at + retention_s
            is_too_much = limit_bytes is not None and total > limit_bytes and finished.num_bytes > 0
            if is_too_much or (ends_at is not None and ends_at <= now):
                due.append(job_id)
                total -= finished.num_bytes
        return due

    async def delete(self, job_ids: Sequence[str]) -> list[Job]:
        """Delete jobs that are over: their files first, so that no file is ever without a record.

        :raises SglangError: if a file or object can not be removed; its job stays then.
        """
        found = [await self._live.get(job_id) for job_id in job_ids]
        jobs = [job for job in found if job is not None]
        for job in jobs:
            self._webhooks.forget(job.id)
            await self._finisher.delete_objects(job.outputs)
        await asyncio.to_thread(self._files.remove, jobs)
        for job in jobs:
            await self._live.delete(job.id)
        for job_id in job_ids:
            self.forget(job_id)
        return jobs

    async def upload_again(self) -> None:
        """Upload what could not be uploaded before; the longer that fails, the more seldom it is tried."""
        for job_id in list(self._unuploaded):
            job = await self._live.get(job_id)
            if job is None:
                self.forget(job_id)
            elif not await self._upload(job):
                self._next_upload_at = time.time() + self._upload_delay_s
                self._upload_delay_s = min(2 * self._upload_delay_s, _LAST_UPLOAD_RETRY_S)
                return  # the storage is not well: there is no point in asking for every file
        self._upload_delay_s = _FIRST_UPLOAD_RETRY_S
        self._next_upload_at = 0.0

    async def _upload(self, job: Job) -> bool:
        """Upload the outputs of a job that are still here, and say whether that has worked."""
        outputs = await self._finisher.upload(job, job.outputs)
        changed = await self._finisher.keep(job.id, lambda now: evolve(now, outputs=outputs))
        if changed is None:  # deleted meanwhile
            await self._finisher.discard(outputs)
            return True
        self.note(changed)
        await self._finisher.remove_uploaded(job.outputs, outputs)
        return all(output.url is not None or output.file is None for output in outputs)

    async def forget_all(self) -> None:
        """Remove the uploads of every job, where the store forgets the jobs themselves."""
        jobs = list(self._live.unfinished)
        last: str | None = None
        while True:
            page = await self._live.list(JobQuery(statuses=TERMINAL | UNFINISHED, after=last, limit=_PAGE))
            jobs += page
            if len(page) < _PAGE:
                break
            last = page[-1].id
        await asyncio.to_thread(self._files.remove_inputs, jobs)
