"""The spans of jobs: how long they wait, run and are uploaded, told by their events in the server's own process.

So they are complete whatever becomes of the processes that hold the model.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from sglang_core import Job, JobEvent

_NS = 10**9


class JobTraces:
    """Listens to all jobs of a server, in the thread of its event loop."""

    def __init__(self, tracer: Tracer, model: str) -> None:
        self._tracer = tracer
        self._model = model
        self._traces: dict[str, _JobTrace] = {}

    def tell(self, event: JobEvent) -> None:
        """Trace an event."""
        job = event.job
        trace = self._traces.get(job.id)
        if trace is None:
            # The first event of a job comes in the context of the request that submits it; one of an earlier server's
            # has no request any more.
            parent = contexts.get_current() if event.kind == "queued" else contexts.Context()
            trace = self._traces[job.id] = _JobTrace(self._tracer, job, parent, self._model)
        trace.tell(event)
        if event.kind == "finished":
            del self._traces[job.id]


class _JobTrace:
    """``job``, and below it ``queue``, ``run`` with the stages, and ``upload``."""

    def __init__(self, tracer: Tracer, job: Job, parent: Context, model: str) -> None:
        self._tracer = tracer
        attributes = {"sglang.job.id": job.id, "sglang.job.kind": job.kind, "sglang.job.operation": job.operation}
        attributes["sglang.model"] = model
        self._job = tracer.start_span("job", parent, attributes=attributes, start_time=_ns(job.created_at))
        #: What the job is about: waiting, running or being uploaded; below a run, the stage.
        self._phase: Span | None = None
        self._stage: Span | None = None
        self._stage_name: str | None = None
        self._is_running = False

    def tell(self, event: JobEvent) -> None:
        job = event.job
        if event.kind == "queued":
            self._queued(job)
        elif event.kind == "started":
            self._end_phase()
            self._phase = self._below(self._job, "run", job.started_at)
            self._phase.set_attribute("sglang.job.attempt", job.attempts)
            self._is_running = True
        elif event.kind == "finished":
            self._finished(job)
        elif event.stage == "upload":
            self._end_phase()
            self._phase = self._below(self._job, "upload")
        elif event.stage is not None and self._is_running:
            self._step(event, event.stage)

    def _queued(self, job: Job) -> None:
        if self._is_running:  # the run was lost with its process, and there will be another
            self._end_phase(lost="the run was interrupted")
        if self._phase is None:
            self._phase = self._below(self._job, "queue", job.created_at if job.attempts == 0 else None)

    def _step(self, event: JobEvent, stage: str) -> None:
        if stage != self._stage_name or (event.index == 0 and event.kind == "progress"):
            self._end_stage()
            assert self._phase is not None
            self._stage, self._stage_name = self._below(self._phase, stage), stage
        if self._stage is not None and event.index:
            self._stage.set_attribute("sglang.stage.steps", event.index)

    def _finished(self, job: Job) -> None:
        if job.status == "failed" and job.error is not None:
            self._end_phase(lost=job.error.code)
            self._job.set_attribute("error.type", job.error.code)
            self._job.set_status(Status(StatusCode.ERROR, job.error.message))
        else:
            self._end_phase()
        attributes = {"sglang.job.status": job.status, "sglang.job.attempts": job.attempts}
        attributes["sglang.job.num_outputs"] = len(job.outputs)
        if job.peak_memory_bytes is not None:
            attributes["sglang.job.peak_memory_bytes"] = job.peak_memory_bytes
        self._job.set_attributes(attributes)
        self._job.end()

    def _below(self, parent: Span, name: str, begun_s: float | None = None) -> Span:
        start_time = time.time_ns() if begun_s is None else _ns(begun_s)
        return self._tracer.start_span(name, set_span_in_context(parent), start_time=start_time)

    def _end_phase(self, lost: str = "") -> None:
        self._end_stage(lost)
        if self._phase is not None:
            if lost:
                self._phase.set_status(Status(StatusCode.ERROR, lost))
            self._phase.end()
        self._phase = None
        self._is_running = False

    def _end_stage(self, lost: str = "") -> None:
        if self._stage is not None:
            if lost:
                self._stage.set_status(Status(StatusCode.ERROR, lost))
            self._stage.end()
        self._stage = self._stage_name = None


def _ns(seconds: float) -> int:
    return int(seconds * _NS)
