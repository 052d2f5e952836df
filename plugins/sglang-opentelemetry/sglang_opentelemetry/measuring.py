"""What a server measures: its HTTP requests, its jobs, and how much waits and runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

if TYPE_CHECKING:
    from sglang_core import AccessRecord, Job, Server

#: Seconds: from a no-op to an hour of video, and what is usual for HTTP.
_LONG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0)
_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0, 300.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def measure(meter: Meter, server: Server) -> None:
    """Measure a server from now on."""
    server.access_listeners.append(_RequestMeasures(meter).note)
    server.jobs.listeners.append(_JobMeasures(meter).note)
    _observe_state(meter, server)


class _RequestMeasures:
    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Time from a request to the end of its answer.",
            explicit_bucket_boundaries_advisory=_HTTP_S,
        )

    def note(self, record: AccessRecord) -> None:
        # What a client makes up is not among the attributes: there must be few of them.
        attributes: dict[str, str | int] = {
            "http.request.method": record.method if record.method in _METHODS else "_OTHER",
            "http.response.status_code": record.status,
            "network.protocol.version": record.http_version,
        }
        if record.route:
            attributes["http.route"] = record.route
        self._duration.record(record.duration_s, attributes)


class _JobMeasures:
    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, what: str) -> Histogram:
            return meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=_LONG_S)

        self._jobs = meter.create_counter("sglang.jobs", "{job}", "Jobs by how they ended.")
        self._duration = seconds("sglang.job.duration", "Time from the acceptance of a job to its end.")
        self._queue = seconds("sglang.job.queue.duration", "Time from the acceptance of a job to the begin of its run.")
        self._stages = seconds("sglang.job.stage.duration", "Time of each stage of a job.")

    def note(self, job: Job) -> None:
        kind = {"sglang.job.kind": job.kind}
        self._jobs.add(1, {**kind, "sglang.job.status": job.status})
        if job.completed_at is not None:
            self._duration.record(
                max(0.0, job.completed_at - job.created_at), {**kind, "sglang.job.status": job.status}
            )
        if job.started_at is not None:
            self._queue.record(max(0.0, job.started_at - job.created_at), kind)
        for stage, seconds in job.timings_s.items():
            self._stages.record(seconds, {"sglang.stage": stage})


def _observe_state(meter: Meter, server: Server) -> None:
    """Have asked from time to time, in a thread of the SDK, what waits and runs."""

    def queued(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(server.jobs.statistics().queued)

    def running(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(server.jobs.statistics().running)

    def ready(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(int(server.health().is_ready))

    def restarts(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(server.supervisor.num_restarts)

    meter.create_observable_gauge("sglang.jobs.queued", [queued], "{job}", "Jobs that wait.")
    meter.create_observable_gauge("sglang.jobs.running", [running], "{job}", "Jobs that run.")
    meter.create_observable_gauge("sglang.engine.ready", [ready], "1", "1 if a request would run now.")
    meter.create_observable_counter("sglang.engine.restarts", [restarts], "{restart}", "Later starts of the ranks.")
