"""From the result of a run to the final state of its job: take the files, upload them, keep the record, announce it."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from attrs import evolve

from ..engine.work import ItemResult
from ..errors import OutputError, SglangError
from ..foreign_code import translated
from ..options.jobs import JobOptions
from ..storage import OpenStorage, UploadItem
from .events import EventHub, JobEvent
from .files import JobFiles
from .live import LiveJobs
from .records import NOT_WRITTEN, Job, JobError, JobOutput, JobStatus
from .threads import DaemonThreads
from .webhooks import WebhookSender

logger = logging.getLogger(__name__)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 10.0
_UPLOADS_AT_ONCE = 4
#: Of these a client is told before they end, so that their records must outlive a loss of power at once. The client of
#: the others waits for the result, and has it or asks again.
_TOLD_EARLY = frozenset({"video"})


def is_told_early(job: Job) -> bool:
    """Say whether the client is answered before the job is over."""
    return job.kind in _TOLD_EARLY


class _NotTakenError(Exception):
    """The outputs of a run can not be moved to where they stay: no fault of the store."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy


class _Taking:
    """Outputs that are taken when they are first asked for: in the thread of the store, with the change of the record.

    A step of its own would be a way to another thread and back, while the client waits.
    """

    def __init__(self, take: Callable[[], tuple[JobOutput, ...]]) -> None:
        self._take = take
        self._outputs: tuple[JobOutput, ...] | None = None

    @property
    def outputs(self) -> tuple[JobOutput, ...]:
        """Return the outputs.

        :raises _NotTakenError: if they are not there, or can not be moved.
        """
        if self._outputs is None:
            try:
                self._outputs = self._take()
            except OutputError as error:
                raise _NotTakenError(error.problem, error.remedy) from error
        return self._outputs


def _taken(outputs: Sequence[JobOutput] | _Taking) -> tuple[JobOutput, ...]:
    return outputs.outputs if isinstance(outputs, _Taking) else tuple(outputs)


class Finisher:
    """Brings jobs to their final state, each exactly once.

    :param on_over: told each job that is over, in the event loop, after its record is kept.
    """

    def __init__(
        self,
        live: LiveJobs,
        files: JobFiles,
        hub: EventHub,
        webhooks: WebhookSender,
        storage: OpenStorage | None,
        options: JobOptions,
        on_over: Callable[[Job], None],
    ) -> None:
        self._live = live
        self._files = files
        self._hub = hub
        self._webhooks = webhooks
        self._storage = storage
        self._options = options
        self._on_over = on_over
        self._threads = DaemonThreads(_UPLOADS_AT_ONCE, "upload")
        #: Why records can not be kept at the moment; empty while all is well.
        self.problem = ""

    async def keep(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job, and try again until that is on record: what happened must not be forgotten for a full disk."""
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                changed = await self._live.change(job_id, change)
            except OutputError as error:
                if self.problem != error.problem:
                    logger.warning("jobs can not be kept, trying again: %s\nTry: %s", error.problem, error.remedy)
                self.problem = error.problem
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LAST_RETRY_S)
            else:
                self.problem = ""
                return changed

    async def end(
        self,
        job_id: str,
        status: JobStatus,
        *,
        outputs: "Sequence[JobOutput] | _Taking" = (),
        error: JobError | None = None,
        result: ItemResult | None = None,
        only_from: JobStatus | None = None,
        is_patient: bool = True,
    ) -> Job | None:
        """Bring a job to a final state, unless it is over; return it. One that is being cancelled is cancelled.

        :param outputs: of a job that is completed.
        :param only_from: leave the job as it is if it is in another state.
        :param is_patient: try until that is on record.
        :raises OutputError: only where ``is_patient`` is false.
        :raises _NotTakenError: if ``outputs`` can not be taken; the job is as it was then.
        """
        now = time.time()
        ended_here = False

        def change(job: Job) -> Job:
            nonlocal ended_here
            ended_here = not job.is_over and only_from in (None, job.status)
            if not ended_here:
                return job
            final: JobStatus = "cancelled" if job.status == "cancelling" else status
            completed_at = max(now, job.started_at or job.created_at)
            retention_s = self._options.retention_s
            ended = evolve(
                job,
                status=final,
                completed_at=completed_at,
                expires_at=None if retention_s is None else completed_at + retention_s,
                outputs=_taken(outputs) if final == "completed" else (),
                error=error if final == "failed" else None,
                progress=1.0 if final == "completed" else job.progress,
                stage=None,
                webhook=self._webhooks.first_state(job),
            )
            return ended if result is None else _with_measures(ended, result)

        job = await (self.keep(job_id, change) if is_patient else self._live.change(job_id, change))
        if job is None or not ended_here:
            return job
        if is_told_early(job):
            await self.flush()
        self._webhooks.add(job)
        self._on_over(job)
        self._hub.publish(JobEvent(kind="finished", job=job))
        return job

    async def flush(self) -> None:
        """Wait until files and records survive the loss of power, as far as the disk allows."""
        try:
            await asyncio.to_thread(self._files.flush)
            await self._live.flush()
        except OutputError as error:
            logger.warning("records of jobs may not survive a loss of power: %s", error.problem)

    async def complete(self, job_id: str, result: ItemResult, folder: Path) -> None:
        """End a job whose outputs were made in ``folder``."""
        taking = _Taking(partial(self._files.take, job_id, result.outputs, folder))
        try:
            if self._storage is None:
                await self.end(job_id, "completed", outputs=taking, result=result)
                return
            # On record first: a server that ends during the upload does not have to make them again.
            job = self._live.advance(job_id, "upload", 0.0)
            if job is not None:
                num_outputs = len(result.outputs)
                self._hub.publish(JobEvent(kind="progress", job=job, stage="upload", index=0, total=num_outputs))
            await self.keep(job_id, lambda job: job if job.is_over else evolve(job, outputs=taking.outputs))
            await self.complete_with(job_id, taking.outputs, result)
        except _NotTakenError as error:
            logger.warning("the result of job %s is lost: %s (%s)", job_id, error.problem, error.remedy)
            await self.end(job_id, "failed", error=NOT_WRITTEN, result=result)

    async def complete_with(self, job_id: str, outputs: Sequence[JobOutput], result: ItemResult | None = None) -> None:
        """End a job whose outputs are where they stay, after their upload where there is a storage."""
        job = self._live.current(job_id)
        uploaded = tuple(outputs) if job is None else await self.upload(job, outputs)
        ended = await self.end(job_id, "completed", outputs=uploaded, result=result)
        if ended is not None and ended.status == "completed":
            await self.remove_uploaded(outputs, ended.outputs)
        else:
            await self.discard([*outputs, *uploaded])

    async def upload(self, job: Job, outputs: Sequence[JobOutput]) -> tuple[JobOutput, ...]:
        """Return the outputs with their URLs, or with what went wrong; their files stay for now."""
        if self._storage is None:
            return tuple(outputs)
        uploads = [self._threads.run(partial(self._upload, self._storage, job, output)) for output in outputs]
        return tuple(await asyncio.gather(*uploads))

    def _upload(self, storage: OpenStorage, job: Job, output: JobOutput) -> JobOutput:
        if output.url is not None:
            return output
        path = self._files.output_path(output)
        if path is None:
            return evolve(output, upload_error="the file is not here any more")
        date = datetime.fromtimestamp(job.created_at, UTC).date().isoformat()
        facts = {"id": job.id, "index": str(output.index), "kind": output.kind, "date": date}
        try:
            with translated("the storage", OutputError, "see the documentation of the storage's plugin"):
                stored = storage.upload(UploadItem(path=path, media_type=output.media_type, facts=facts))
        except SglangError as error:
            logger.warning("output %d of job %s is not uploaded: %s", output.index, job.id, error.problem)
            return evolve(output, upload_error=error.problem)
        return evolve(output, file=None, url=stored.url, object_key=stored.key, upload_error=None)

    async def remove_uploaded(self, before: Sequence[JobOutput], after: Sequence[JobOutput]) -> None:
        """Delete the local files of outputs that are uploaded, now that their record says so."""
        gone = [old for old, new in zip(before, after, strict=True) if old.file is not None and new.file is None]
        if not gone:
            return
        try:
            await asyncio.to_thread(self._files.remove_outputs, gone)
        except OutputError as error:
            logger.warning("an uploaded output stays here as well: %s", error.problem)

    async def discard(self, outputs: Sequence[JobOutput]) -> None:
        """Remove outputs that no job has: files, and objects of the storage."""
        try:
            await asyncio.to_thread(self._files.remove_outputs, outputs)
            await self.delete_objects(outputs)
        except SglangError as error:
            logger.warning("the outputs of a cancelled job are not removed: %s", error.problem)

    async def delete_objects(self, outputs: Sequence[JobOutput]) -> None:
        """Delete uploaded outputs from the storage.

        :raises SglangError: if it refuses.
        """
        keys = [output.object_key for output in outputs if output.object_key is not None]
        storage = self._storage
        if storage is None:
            if keys:
                logger.warning("%d uploaded outputs stay in the storage, which is not configured now", len(keys))
            return
        for key in keys:
            await self._threads.run(partial(_delete, storage, key))


def _delete(storage: OpenStorage, key: str) -> None:
    with translated("the storage", OutputError, "see the documentation of the storage's plugin"):
        storage.delete(key)


def _with_measures(job: Job, result: ItemResult) -> Job:
    return evolve(
        job,
        timings_s=dict(result.timings_s),
        paused_s=result.paused_s,
        peak_memory_bytes=result.peak_memory_bytes,
    )
