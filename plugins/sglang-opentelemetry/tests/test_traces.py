"""The spans that events make, without a server."""

import time

import pytest
from attrs import evolve
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sglang_opentelemetry import environment
from sglang_opentelemetry.jobs import JobTraces
from sglang_opentelemetry.runs import RunTraces

from sglang_core import Job, JobError, JobEvent, RunEnded, RunStarted, StageEnded, StageStarted, StepDone


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


@pytest.fixture
def asks_for(monkeypatch):
    def asks_for(signal, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        environment.asks_for.cache_clear()
        return environment.asks_for(signal)

    yield asks_for
    environment.asks_for.cache_clear()


def tree(exporter):
    """Return the names of all spans, each behind those it is below, in the order they ended."""
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}

    def path(span):
        above = spans.get(span.parent.span_id) if span.parent else None
        return f"{path(above)}/{span.name}" if above else span.name

    return [path(span) for span in spans.values()]


def a_job(**values):
    created_at = time.time()
    return Job(id="j", kind="image", operation="images.generations", created_at=created_at, settings={}, **values)


def test_job_that_runs_twice_has_two_runs(exporter, tracer):
    traces = JobTraces(tracer, "tiny")
    queued = a_job()
    running = evolve(queued, status="in_progress", started_at=time.time(), attempts=1)
    again = evolve(queued, attempts=1)
    over = evolve(running, status="completed", attempts=2)

    for kind, job, stage, index in [
        ("queued", queued, None, None),
        ("queued", queued, None, None),  # a better place
        ("started", running, None, None),
        ("progress", running, "denoise", 0),
        ("progress", running, "denoise", 1),
        ("queued", again, None, None),
        ("started", evolve(running, attempts=2), None, None),
        ("progress", running, "denoise", 0),
        ("preview", running, "denoise", 3),
        ("progress", running, "denoise", 0),  # of the next output
        ("progress", running, "upload", 0),
        ("finished", over, None, None),
    ]:
        traces.tell(JobEvent(kind=kind, job=job, stage=stage, index=index))

    assert tree(exporter) == [
        "job/queue", "job/run/denoise", "job/run", "job/queue",
        "job/run/denoise", "job/run/denoise", "job/run", "job/upload", "job",
    ]  # fmt: skip
    spans = exporter.get_finished_spans()
    assert [span.status.is_ok for span in spans if span.name == "run"] == [False, True]
    assert [span.attributes.get("sglang.stage.steps") for span in spans if span.name == "denoise"] == [1, 3, None]


def test_job_of_an_earlier_server_is_traced_from_where_it_is(exporter, tracer):
    traces = JobTraces(tracer, "tiny")
    error = JobError(code="out_of_memory", message="it is too large")

    with tracer.start_as_current_span("a request that has nothing to do with it"):
        traces.tell(JobEvent(kind="started", job=a_job(status="in_progress", attempts=2)))
    traces.tell(JobEvent(kind="finished", job=a_job(status="failed", error=error)))

    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["job"].parent is None
    assert spans["run"].parent.span_id == spans["job"].context.span_id
    assert (spans["job"].attributes["error.type"], spans["job"].status.is_ok) == ("out_of_memory", False)


def test_stages_of_a_run_may_lie_in_one_another_and_be_cut_short(exporter, tracer):
    traces = RunTraces(tracer)
    for event in [
        RunStarted(run_id="r", settings=None),
        StageStarted(run_id="r", stage="load"),
        StageStarted(run_id="r", stage="fetch", unit="byte"),
        StepDone(run_id="r", stage="fetch", index=100, total=None, unit="byte"),
        StageEnded(run_id="r", stage="fetch", duration_s=0.1),
        StageEnded(run_id="r", stage="load", duration_s=0.2),
        StageStarted(run_id="r", stage="denoise", total=4),
        StepDone(run_id="r", stage="denoise", index=2, total=4),
        RunEnded(run_id="r", outcome="cancelled", duration_s=0.5),
        StepDone(run_id="r", stage="denoise", index=3, total=4),
    ]:
        traces.tell(event)

    assert tree(exporter) == ["run/load/fetch", "run/load", "run/denoise", "run"]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["denoise"].attributes["sglang.stage.steps"] == 2
    assert "sglang.stage.steps" not in spans["fetch"].attributes
    assert (spans["run"].attributes["sglang.run.outcome"], spans["run"].status.is_ok) == ("cancelled", True)


def test_runs_of_jobs_are_left_to_the_server(exporter, tracer):
    traces = RunTraces(tracer)

    traces.tell(RunStarted(run_id="r", settings=None, job_ids=("j",)))
    traces.tell(RunEnded(run_id="r", outcome="completed", duration_s=0.5))

    assert exporter.get_finished_spans() == ()


def test_run_is_below_the_span_of_the_program_that_makes_it(exporter, tracer, monkeypatch):
    monkeypatch.setenv("TRACEPARENT", f"00-{'1' * 32}-{'2' * 16}-01")
    traces = RunTraces(tracer)
    with tracer.start_as_current_span("program"):
        traces.tell(RunStarted(run_id="r", settings=None))
    traces.tell(RunEnded(run_id="r", outcome="completed", duration_s=0.5))

    assert tree(exporter) == ["program", "program/run"]


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, False, False),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
            },
            True,
            False,
        ),
    ],
    ids=lambda value: ",".join(value) or "nothing" if isinstance(value, dict) else "",
)
def test_variables_decide_what_is_sent(variables, traces, metrics, asks_for):
    assert asks_for("traces", **variables) is traces
    assert asks_for("metrics", **variables) is metrics
