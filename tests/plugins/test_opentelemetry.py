"""The OpenTelemetry plugin from its wheel, with real servers, a real ``generate`` and a collector that decodes."""

import json
import os
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from fresh_environment import Environment, build_wheel_of_copy
from http_process import wait_for
from minio import Minio
from otlp_collector import Collector
from rank_plugins import write_rank_plugin
from real_server import RealServer
from s3_server import s3_server

from sglang_core.testing import write_tiny_pipeline

SOURCE = Path(__file__).parents[2] / "plugins" / "sglang-opentelemetry"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opentelemetry")
    environment = Environment(folder / "fresh")
    environment.install(build_wheel_of_copy(SOURCE, folder))
    return environment


@pytest.fixture(scope="module")
def start(environment):
    """Start servers with the plugin."""

    def start(folder, *words, **variables):
        return RealServer(folder, *words, environment={**QUICK, **variables}, python=environment.python)

    return start


@pytest.fixture(scope="module")
def collector():
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(start, collector, tmp_path_factory):
    with start(
        tmp_path_factory.mktemp("server"),
        *("--log-format", "json", "--access-log-exclude-prefixes", "/health"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=tests",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    ) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def test_request_for_an_image_is_one_trace_from_the_client_to_the_stages(client, server, collector):
    body = {"prompt": "a secret circle", "num_inference_steps": 3}
    answer = client.post("/v1/images/generations?token=hidden", json=body, headers={"traceparent": TRACEPARENT})
    assert answer.status_code == 200
    job_id = answer.json()["id"]

    request = collector.wait("POST /v1/images/generations", sglang__request_id=answer.headers["x-request-id"])
    job = collector.wait("job", sglang__job__id=job_id)
    run = collector.wait("run", sglang__job__attempt=1)

    assert (request.trace, request.parent, request.kind) == (TRACE, CALLER, 2)
    assert request.attributes["http.route"] == "/v1/images/generations"
    assert request.attributes["http.response.status_code"] == 200
    assert (job.trace, job.parent) == (TRACE, request.id)
    assert job.attributes["sglang.job.status"] == "completed"
    assert job.attributes["sglang.job.num_outputs"] == 1
    assert [span.name for span in collector.below(job)] == ["queue", "run"]
    stages = collector.below(run)
    assert [span.name for span in stages] == ["encode", "denoise", "decode", "save"]
    assert stages[1].attributes["sglang.stage.steps"] == 3
    for inner, outer in [(job, request), (run, job), *((stage, run) for stage in stages)]:
        assert outer.start <= inner.start <= inner.end <= outer.end + 10**9  # what is told late ends late
    assert request.resource["service.name"] == "sglang"
    assert request.resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-tenant"] == "tests"
    told = json.dumps([[span.attributes, span.events] for span in collector.spans])
    assert "secret circle" not in told
    assert "hidden" not in told


def test_log_has_the_ids_of_the_trace(client, server, collector):
    client.get("/v1/models", headers={"traceparent": TRACEPARENT, "x-request-id": "find-me"})

    span = collector.wait("GET /v1/models", sglang__request_id="find-me")
    lines = wait_for(lambda: [line for line in server.err.splitlines() if "find-me" in line], "the line")
    line = json.loads(lines[0])
    assert (line["trace_id"], line["span_id"], line["path"]) == (TRACE, span.id, "/v1/models")


def test_request_without_a_trace_begins_one(client, collector):
    client.get("/v1/models/nobody", headers={"traceparent": "00-zz-zz-zz", "x-request-id": "own"})

    span = collector.wait("GET /v1/models/{model:path}", sglang__request_id="own")

    assert (span.parent, len(span.trace)) == ("", 32)
    assert span.trace != TRACE
    assert span.attributes["http.response.status_code"] == 404
    assert not span.is_error  # the client's fault


def test_what_the_access_log_leaves_out_is_not_traced(client, collector):
    client.get("/health", headers={"x-request-id": "probe"})
    client.get("/v1/models", headers={"x-request-id": "after-the-probe"})

    collector.wait("GET /v1/models", sglang__request_id="after-the-probe")
    assert not [span for span in collector.spans if span.attributes.get("url.path") == "/health"]


def test_failed_cancelled_and_crashed_jobs_say_what_became_of_them(client, collector):
    def background(prompt, **fields):
        body = {"prompt": prompt, "run_in_background": True, **fields}
        return client.post("/v1/images/generations", json=body).json()["id"]

    failed = background("refuse this")
    crashed = background("exit")
    long = background("lively pause=0.1", num_inference_steps=500)
    wait_for(lambda: client.get(f"/v1/images/{long}").json()["stage"] == "denoise", "the run")
    client.post(f"/v1/images/{long}/cancel")

    job = collector.wait("job", sglang__job__id=failed)
    assert (job.is_error, job.attributes["error.type"]) == (True, "invalid_request")
    job = collector.wait("job", sglang__job__id=crashed)
    assert (job.is_error, job.attributes["error.type"]) == (True, "crashed")
    names = [span.name for span in collector.below(job)]
    assert names == ["queue", "run", "queue", "run"]  # it was tried again
    assert [span.is_error for span in collector.below(job) if span.name == "run"] == [True, True]
    job = collector.wait("job", sglang__job__id=long)
    assert (job.is_error, job.attributes["sglang.job.status"]) == (False, "cancelled")


def test_loading_of_the_model_is_a_trace_of_its_own(collector, server):
    load = collector.wait("load")

    [run] = [span for span in collector.spans if span.id == load.parent]
    assert (run.name, run.parent, run.attributes["sglang.run.outcome"]) == ("run", "", "completed")
    assert load.resource["service.name"] == "sglang"
    assert {span.name for span in collector.below(run)} == {"plan", "fetch", "load"}  # jobs are the server's to trace


def test_numbers_of_the_server_are_sent(client, collector):
    client.post("/v1/images/generations", json={"prompt": "a circle"})
    wanted = {"http.server.request.duration", "sglang.job.duration", "sglang.job.stage.duration", "sglang.jobs"}
    wanted |= {"sglang.jobs.queued", "sglang.jobs.running", "sglang.engine.ready", "sglang.job.queue.duration"}

    wait_for(lambda: wanted <= set(collector.metrics), "the metrics")

    duration = collector.metrics["http.server.request.duration"]
    assert duration.unit == "s"
    routes = {pair.value.string_value for point in duration.histogram.data_points for pair in point.attributes}
    assert "/v1/images/generations" in routes
    wait_for(lambda: collector.metrics["sglang.engine.ready"].gauge.data_points[0].as_int == 1, "the engine")


def test_upload_is_a_part_of_the_job(start, collector, tmp_path):
    with s3_server(MOTO_S3_CUSTOM_ENDPOINTS="") as address:
        admin = Minio(address.removeprefix("http://"), "admin", "adminadmin", secure=False, region="us-east-1")
        admin.make_bucket("made")
        admin._http.clear()
        variables = {"S3_ENDPOINT_URL": address, "S3_ACCESS_KEY_ID": "AKIA", "S3_SECRET_ACCESS_KEY": "secret"}
        words = ("--cloud-storage-type", "s3", "--s3-bucket-name", "made", "--s3-url-kind", "presigned")
        given = {f"SGLANG_{name}": value for name, value in variables.items()}
        with start(
            tmp_path, *words, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", **given
        ) as server:
            with server.client() as client:
                made = client.post("/v1/images/generations", json={"prompt": "a circle"}).json()
            job = collector.wait("job", sglang__job__id=made["id"])
            wait_for(lambda: len(collector.below(job)) == 3, "the upload")

    assert [span.name for span in collector.below(job)] == ["queue", "run", "upload"]
    assert "X-Amz-Signature" not in json.dumps([span.attributes for span in collector.spans])


def test_last_spans_go_out_when_the_server_ends(start, collector, tmp_path):
    server = start(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="3600000")
    with server.client() as client:
        client.get("/v1/models", headers={"x-request-id": "the-last"})

    assert server.close() == 0

    assert [span for span in collector.spans if span.attributes.get("sglang.request_id") == "the-last"]


@pytest.mark.parametrize("kind", ["gone", "silent"])
def test_collector_that_is_away_delays_and_fails_nothing(kind, start, tmp_path):
    with Collector() as silent:
        silent.is_silent.set()
        endpoint = NOWHERE if kind == "gone" else silent.url
        with start(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="1") as server:
            with server.client() as client:
                statuses = [
                    client.post("/v1/images/generations", json={"prompt": "a circle"}).status_code for _ in range(20)
                ]
                wait_for(lambda: "the collector does not take traces" in server.err, "the warning")
                assert client.get("/health").status_code == 200
            assert statuses == [200] * 20
            assert server.close() == 0

    assert server.err.count("the collector does not take traces") <= 2  # of the server, and of the rank that loads
    assert "Traceback" not in server.err


@pytest.fixture(scope="module")
def generate(environment, tmp_path_factory):
    """Run ``sglang generate`` with the plugin."""
    folder = tmp_path_factory.mktemp("generate")
    site, model = write_rank_plugin(folder / "site"), write_tiny_pipeline(folder / "model")

    def generate(*words, **variables):
        given = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", **QUICK, **variables}
        prompt = ("--prompt", "a secret circle", "--device", "cpu", "--output-path", folder / "out")
        return environment.sglang("generate", "--model-path", model, *prompt, *words, **given)

    return generate


def test_generate_is_a_trace_of_run_and_stages(generate, collector):
    trace, caller = "1" * 32, "2" * 16
    done = generate(
        *("--num-outputs", 2, "--num-inference-steps", 5),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_SERVICE_NAME="mine",
        TRACEPARENT=f"00-{trace}-{caller}-01",
    )

    assert done.returncode == 0, done.stderr
    [run] = [span for span in collector.spans if span.trace == trace and span.name == "run"]
    assert (run.parent, run.resource["service.name"]) == (caller, "mine")
    assert run.attributes["sglang.run.outcome"] == "completed"
    assert run.attributes["sglang.backend"] == "wilful"
    names = [span.name for span in collector.below(run)]
    assert names[:1] == ["plan"]
    assert [name for name in names if name in {"encode", "denoise", "decode", "save"}] == 2 * [
        "encode", "denoise", "decode", "save",
    ]  # fmt: skip
    assert {span.attributes["sglang.stage.steps"] for span in collector.below(run) if span.name == "denoise"} == {5}
    assert [name for name, _ in run.events] == ["output saved", "output saved"]
    assert "secret circle" not in json.dumps([span.attributes for span in collector.spans])


def test_failed_generate_is_a_trace_with_an_error(generate, collector):
    trace = "3" * 32
    done = generate(
        *("--prompt", "fail"), OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, TRACEPARENT=f"00-{trace}-{'2' * 16}-01"
    )

    assert done.returncode != 0
    [run] = [span for span in collector.spans if span.trace == trace and span.name == "run"]
    assert (run.is_error, run.attributes["sglang.run.outcome"]) == (True, "failed")


def test_generate_ends_also_where_no_collector_answers(generate):
    with Collector() as silent:
        silent.is_silent.set()
        started = time.monotonic()
        done = generate(OTEL_EXPORTER_OTLP_ENDPOINT=silent.url, OTEL_EXPORTER_OTLP_TIMEOUT="3600")
        seconds = time.monotonic() - started
    refused = generate(OTEL_EXPORTER_OTLP_ENDPOINT=NOWHERE)

    assert done.returncode == 0, done.stderr
    assert seconds < 600  # and not an hour
    assert refused.returncode == 0
    assert "Traceback" not in done.stderr + refused.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin: traces are sent by otlp only"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "traces are sent by http/protobuf only"),
    ],
    ids=["disabled", "none", "other exporter", "grpc"],
)
def test_nothing_is_sent_where_that_is_said(variables, words, generate):
    with Collector() as unused:
        done = generate(OTEL_EXPORTER_OTLP_ENDPOINT=unused.url, **variables)

    assert done.returncode == 0, done.stderr
    assert unused.spans == []
    assert words in done.stderr
    if not words:
        assert "OTEL_" not in done.stderr


def test_without_the_variables_nothing_is_imported(environment):
    probe = (
        "import sys, sglang_opentelemetry as plugin; from types import SimpleNamespace;"
        "plugin.sglang_on_event(SimpleNamespace());"
        "assert plugin.sglang_register_middleware()[0].middleware(None) is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([environment.python, "-c", probe], capture_output=True, text=True, check=False, env=clean)

    assert done.stdout == "[]\n", done.stderr


def test_plugin_is_listed_and_serves_over_http(environment, server):
    listed = json.loads(environment.sglang("plugins", "list", "--json").stdout)["plugins"]

    assert {row["name"]: row["state"] for row in listed}["opentelemetry"] == "ok"
    assert httpx.get(f"{server.url}/liveness").status_code == 200
