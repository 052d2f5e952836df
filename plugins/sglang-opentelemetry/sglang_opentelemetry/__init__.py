"""Traces and metrics by OpenTelemetry, for whoever sets its ``OTEL_...`` variables; nothing for others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .environment import asks_for
from .layer import TelemetryLayer

if TYPE_CHECKING:
    from sglang_core import Event, MiddlewareLayer

    from .runs import RunTraces


@hookimpl
def sglang_register_middleware() -> list[MiddlewareLayer]:
    """Add the spans of requests to a server; its jobs and metrics come along."""
    return [TelemetryLayer()]


@hookimpl
def sglang_on_event(event: Event) -> None:
    """Trace a run."""
    traces = _run_traces()
    if traces is not None:
        traces.tell(event)


@cache
def _run_traces() -> RunTraces | None:
    if not asks_for("traces"):
        return None
    from .providers import tracer  # the SDK: 0.2 s, for those who want it
    from .runs import RunTraces

    return RunTraces(tracer())
