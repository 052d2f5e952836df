"""The spans of runs outside of a server: ``sglang generate``, the Python API, and the loading of a server's model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from sglang_core import (
    OutputSaved,
    OutputUploaded,
    RunEnded,
    RunPlanned,
    RunStarted,
    StageEnded,
    StageStarted,
    StepDone,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from sglang_core import Event, ExecutionPlan

#: How a program that starts another hands its trace on.
_CARRIERS = ("traceparent", "tracestate", "baggage")


class RunTraces:
    """Listens to all runs of this process, each told in its own thread. Runs of a server's jobs are that server's."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._runs: dict[str, _RunTrace] = {}

    def tell(self, event: Event) -> None:
        """Trace an event."""
        if isinstance(event, RunStarted):
            if not event.job_ids:
                self._runs[event.run_id] = _RunTrace(self._tracer, event)
            return
        run = self._runs.get(event.run_id)
        if run is None:
            return
        run.tell(event)
        if isinstance(event, RunEnded):
            del self._runs[event.run_id]


class _RunTrace:
    """``run``, and below it the stages."""

    def __init__(self, tracer: Tracer, event: RunStarted) -> None:
        self._tracer = tracer
        self._span = tracer.start_span("run", _parent(), attributes={"sglang.run.id": event.run_id})
        #: Stages that have begun and not ended, the innermost last.
        self._stages: list[tuple[str, Span]] = []

    def tell(self, event: Event) -> None:
        if isinstance(event, RunPlanned):
            self._planned(event.plan)
        elif isinstance(event, StageStarted):
            parent = self._stages[-1][1] if self._stages else self._span
            span = self._tracer.start_span(event.stage, set_span_in_context(parent))
            self._stages.append((event.stage, span))
        elif isinstance(event, StepDone) and event.unit != "byte":
            span = next((span for name, span in reversed(self._stages) if name == event.stage), self._span)
            span.set_attribute("sglang.stage.steps", event.index)
        elif isinstance(event, StageEnded):
            self._stage_ended(event)
        elif isinstance(event, OutputSaved):
            known = ("kind", "width", "height", "num_frames")
            attributes = {f"sglang.output.{name}": event.details[name] for name in known if name in event.details}
            self._span.add_event("output saved", {"sglang.output.index": event.index, **attributes})
        elif isinstance(event, OutputUploaded):
            self._span.add_event("output uploaded", {"sglang.output.index": event.index})
        elif isinstance(event, RunEnded):
            self._ended(event)

    def _planned(self, plan: ExecutionPlan) -> None:
        self._span.set_attributes(
            {
                "sglang.model": plan.model.reference,
                "sglang.backend": plan.backend.value,
                "sglang.device": plan.device.value,
                "sglang.kind": plan.kind,
                "sglang.num_outputs": len(plan.requests),
            }
        )

    def _stage_ended(self, event: StageEnded) -> None:
        while self._stages:
            name, span = self._stages.pop()
            if not event.ok:
                span.set_status(Status(StatusCode.ERROR))
            span.end()
            if name == event.stage:
                return

    def _ended(self, event: RunEnded) -> None:
        for _, span in reversed(self._stages):
            span.end()
        self._span.set_attribute("sglang.run.outcome", event.outcome)
        if event.outcome == "failed":
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _parent() -> Context | None:
    """Return the context of whoever started this program; ``None`` where the program has a span of its own."""
    if trace.get_current_span().get_span_context().is_valid:
        return None  # stands for the current one
    carrier = {name: os.environ[name.upper()] for name in _CARRIERS if name.upper() in os.environ}
    return propagate.extract(carrier)
