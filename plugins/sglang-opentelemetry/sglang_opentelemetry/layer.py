"""What a server gets: a layer that traces its requests, and listeners for its jobs and measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .environment import asks_for

if TYPE_CHECKING:
    from starlette.middleware import Middleware

    from sglang_core import Server


class TelemetryLayer:
    """The layer, where the environment asks for traces or metrics."""

    name = "opentelemetry"
    #: Around what other plugins add, so that its time is seen as well.
    order = -100

    def middleware(self, server: Server) -> Middleware | None:
        """Begin to trace and to measure; ``None`` if nobody asks for traces."""
        if asks_for("metrics"):
            from .measuring import measure
            from .providers import meter

            measure(meter(), server)
        if not asks_for("traces"):
            return None
        from starlette.middleware import Middleware

        from .http_requests import RequestTraces
        from .jobs import JobTraces
        from .providers import tracer

        server.jobs.event_listeners.append(JobTraces(tracer(), server.model_names[0]).tell)
        # What is too dull for the access log, as probes are, is too dull for a trace.
        excluded = server.options.access_log_exclude_prefixes
        return Middleware(RequestTraces, tracer=tracer(), excluded=excluded)
