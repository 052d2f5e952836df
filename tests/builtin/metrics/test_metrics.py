from types import SimpleNamespace

import pytest
from http_process import ServerProcess, wait_for
from prometheus_client.parser import text_string_to_metric_families

from sglang_core.testing import make_settings
from sglang_plugins_builtin import metrics


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(
        tmp_path_factory.mktemp("metrics"), "--port", "0", "--enable-metrics", plugins="metrics"
    ) as server:
        yield server.ready()


def samples(client):
    """Return the samples of ``/metrics`` by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_queue_engine_and_process_are_shown(server):
    with server.client() as client:
        found = samples(client)

        assert found["sglang:diffusion_num_queue_reqs", ()] == 2
        assert found["sglang:diffusion_num_running_reqs", ()] == 1
        assert found["sglang:diffusion_engine_ready", ()] == 1
        assert found["process_resident_memory_bytes", ()] > 0
        server.script("state", "restarting:it crashed")
        assert samples(client)["sglang:diffusion_engine_ready", ()] == 0
        server.script("state", None)


def test_http_requests_are_counted_by_route_and_not_by_path(server):
    with server.client() as client:
        for number in range(3):
            client.get(f"/test/items/{number}")
            client.get(f"/nowhere/{number}")
        client.request("BREW", "/test/items/1")
        items = (("method", "GET"), ("route", "/test/items/{item}"), ("status", "200"))
        others = (("method", "GET"), ("route", "none"), ("status", "404"))
        # A request is counted when its answer is out, which a client may have read by then.
        wait_for(
            lambda: all(samples(client).get(("sglang:http_requests_total", key), 0) >= 3 for key in (items, others)),
            "the count of the last request",
        )
        found = samples(client)

    assert found["sglang:http_requests_total", items] == 3
    assert found["sglang:http_requests_total", others] == 3
    assert not any("/nowhere" in str(key) or "BREW" in str(key) for key in found)


def test_finished_jobs_are_counted_with_their_times(server):
    with server.client() as client:
        client.post("/test/finish")
        found = samples(client)

    kind = ("kind", "image")
    assert found["sglang:diffusion_requests_total", (kind, ("status", "completed"))] == 1
    assert found["sglang:diffusion_request_latency_seconds_sum", (kind,)] == 7.0
    assert found["sglang:diffusion_queue_time_seconds_sum", (kind,)] == 2.0
    assert found["sglang:diffusion_stage_host_latency_seconds_sum", (("stage", "denoise"),)] == 4.5


def test_open_metrics_is_spoken_with_who_asks_for_it(server):
    with server.client() as client:
        answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_without_the_switch_there_is_nothing(manager):
    if "metrics" not in manager.records:
        manager.register(metrics, "metrics")
    server = SimpleNamespace(settings=make_settings(manager, "serve"))

    [group] = [group for group in manager.routes if group.name == "metrics"]

    assert group.routes(server) == []
    assert group.describe(server) == {}
