"""What is counted: HTTP requests, jobs, the engine, and the process itself.

Names are those of the system this project follows, where it has them, so that dashboards go on working.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from sglang_core import AccessRecord, Job, Server

_PREFIX = "sglang:diffusion_"
#: Seconds: from a no-op to an hour of video.
_LONG_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ServerMetrics:
    """The numbers of one server, counted from now on."""

    def __init__(self, server: Server) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}requests_total", "Jobs by how they ended.", ["status", "kind"], registry=self._registry
        )
        self._latency = Histogram(
            f"{_PREFIX}request_latency_seconds",
            "Time from the acceptance of a job to its end.",
            ["kind"],
            buckets=_LONG_BUCKETS,
            registry=self._registry,
        )
        self._queue_time = Histogram(
            f"{_PREFIX}queue_time_seconds",
            "Time from the acceptance of a job to the begin of its run.",
            ["kind"],
            buckets=_LONG_BUCKETS,
            registry=self._registry,
        )
        self._stages = Histogram(
            f"{_PREFIX}stage_host_latency_seconds",
            "Time of each stage of a job.",
            ["stage"],
            buckets=_LONG_BUCKETS,
            registry=self._registry,
        )
        self._paused = Counter(
            f"{_PREFIX}paused_seconds_total",
            "Time in which jobs stood still while smaller ones ran in their middle.",
            ["kind"],
            registry=self._registry,
        )
        self._http = Counter(
            "sglang:http_requests_total", "HTTP requests.", ["method", "route", "status"], registry=self._registry
        )
        self._http_time = Histogram(
            "sglang:http_request_duration_seconds",
            "Time from a request to the end of its answer.",
            ["method", "route"],
            buckets=_HTTP_BUCKETS,
            registry=self._registry,
        )
        self._http_bytes = Counter(
            "sglang:http_response_bytes_total", "Bytes of the answers' bodies.", ["route"], registry=self._registry
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(_ServerState(server))
        server.access_listeners.append(self._note_request)
        server.jobs.listeners.append(self._note_job)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the numbers in the format that a client takes, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _note_request(self, record: AccessRecord) -> None:
        # Labels must be few: what a client makes up is not among them.
        method = record.method if record.method in _METHODS else "other"
        route = record.route or "none"
        self._http.labels(method, route, str(record.status)).inc()
        self._http_time.labels(method, route).observe(record.duration_s)
        self._http_bytes.labels(route).inc(record.num_bytes)

    def _note_job(self, job: Job) -> None:
        self._requests.labels(job.status, job.kind).inc()
        if job.completed_at is not None:
            self._latency.labels(job.kind).observe(max(0.0, job.completed_at - job.created_at))
        if job.started_at is not None:
            self._queue_time.labels(job.kind).observe(max(0.0, job.started_at - job.created_at))
        self._paused.labels(job.kind).inc(job.paused_s)
        for stage, seconds in job.timings_s.items():
            self._stages.labels(stage).observe(seconds)


class _ServerState:
    """What is looked up when somebody asks, rather than counted."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers as they are now."""
        jobs = self._server.jobs.statistics()
        ready = self._server.health().is_ready
        yield GaugeMetricFamily(f"{_PREFIX}num_queue_reqs", "Jobs that wait.", jobs.queued)
        yield GaugeMetricFamily(f"{_PREFIX}num_running_reqs", "Jobs that run.", jobs.running)
        yield GaugeMetricFamily(f"{_PREFIX}engine_ready", "1 if a request would run now.", int(ready))
        yield GaugeMetricFamily(
            f"{_PREFIX}engine_restarts",
            "How often the model's processes were started again.",
            self._server.supervisor.num_restarts,
        )
        yield GaugeMetricFamily(f"{_PREFIX}waiting_webhooks", "Webhooks to be sent.", jobs.waiting_webhooks)
        yield GaugeMetricFamily(f"{_PREFIX}waiting_uploads", "Jobs with outputs to be uploaded.", jobs.waiting_uploads)
