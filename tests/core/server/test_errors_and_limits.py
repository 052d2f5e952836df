import socket

import pytest
from http_process import DEADLINE_S

from sglang_core import (
    ConfigError,
    DeadlineExceededError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfDeviceMemoryError,
    OutputError,
    PluginError,
    RequestCancelledError,
    RequestError,
    SglangError,
    UnavailableError,
)
from sglang_core.engine.request_scheduler import QueueFullError
from sglang_core.server.errors import api_error

SHAPE = {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/liveness/", 404, "not_found"),
        ("GET", "/test/../liveness", 200, None),
        ("DELETE", "/liveness", 405, "method_not_allowed"),
        ("GET", "/test/wrong", 400, "invalid_request"),
        ("GET", "/test/full", 507, "output_not_written"),
        ("GET", "/test/boom", 500, "internal_error"),
    ],
)
def test_error_has_the_shape_of_openais(client, method, path, status, code):
    answer = client.request(method, path)

    assert answer.status_code == status
    if code is not None:
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == SHAPE
        assert answer.json()["error"]["code"] == code


def test_wrong_field_is_named(client):
    error = client.get("/test/wrong").json()["error"]

    assert error == {
        "message": "width: it is 7, and no multiple of 8; try: use 8",
        "type": "invalid_request_error",
        "param": "width",
        "code": "invalid_request",
    }


def test_defect_is_in_the_log_and_not_in_the_answer(client, plain_server):
    answer = client.get("/test/boom", headers={"X-Request-Id": "find-me"})

    assert answer.json()["error"]["type"] == "server_error"
    assert "find-me" in answer.text
    assert "4711" not in answer.text
    assert "RuntimeError: secret detail 4711" in plain_server.err
    assert plain_server.err.count("request find-me failed") == 1
    assert "/srv/outputs" not in client.get("/test/full").text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("width: no", "x"), 400, "invalid_request"),
        (RequestError("width: no", "x"), 400, "invalid_request"),
        (UnavailableError("no", "x"), 400, "unavailable"),
        (OutOfDeviceMemoryError("no", "x"), 400, "out_of_memory"),
        (ModelNotFoundError("no", "x"), 404, "model_not_found"),
        (RequestCancelledError(), 409, "cancelled"),
        (QueueFullError("full", "wait", 7), 429, "queue_full"),
        (PluginError("no", "x"), 500, "internal_error"),
        (SglangError("no", "x"), 500, "internal_error"),
        (ModelLoadError("no", "x"), 503, "model_not_loaded"),
        (DeadlineExceededError("no", "x"), 504, "deadline_exceeded"),
        (OutputError("no", "x"), 507, "output_not_written"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_has_its_status(error, status, code):
    answer = api_error(error)

    assert (answer.status, answer.code) == (status, code)
    assert answer.headers.get("Retry-After") == ("7" if status == 429 else None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2:3", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("a\tb", False), ("<x>", False)],
)
def test_request_id_of_the_client_is_kept_if_it_is_plain(client, given, kept):
    answer = client.get("/liveness", headers={"X-Request-Id": given})

    assert (answer.headers["x-request-id"] == given) == kept
    assert answer.headers["x-request-id"].startswith("req_") != kept


def test_answers_carry_headers_that_hold_browsers_back(client):
    headers = client.get("/nowhere").headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("num_bytes", [0, 1, 99_999, 100_000])
def test_body_up_to_the_limit_is_read(client, num_bytes):
    assert client.post("/test/echo", content=b"x" * num_bytes).json()["num_bytes"] == num_bytes


@pytest.mark.parametrize("path", ["/test/echo", "/test/early", "/nowhere", "/liveness"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["declared", "streamed"])
def test_larger_body_is_refused_and_the_answer_arrives(client, path, is_streamed):
    def chunks():
        for _ in range(80):
            yield b"x" * 10_000

    answer = client.post(path, content=chunks() if is_streamed else b"x" * 800_000)

    if path == "/test/echo" or not is_streamed:
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert "100,000 bytes" in answer.text
    else:  # an endpoint that reads no body has nothing to refuse
        assert answer.status_code in {200, 404, 405}
    assert client.get("/liveness").status_code == 200


@pytest.mark.parametrize(
    ("values", "param", "problem"),
    [
        ({"width": 8192, "height": 8192}, "width", "67,108,864 pixels"),
        ({"num_inference_steps": 501}, "num_inference_steps", "at most 500"),
        ({"num_outputs_per_prompt": 11}, "num_outputs_per_prompt", "11 outputs"),
        ({"num_outputs_per_prompt": 10**12}, "num_outputs_per_prompt", "outputs"),
        ({"prompt": ["a"] * 5, "num_outputs_per_prompt": 3}, "num_outputs_per_prompt", "15 outputs"),
        ({"prompt_path": "/etc/passwd"}, "prompt_path", "can not be chosen"),
        ({"output_path": "/etc"}, None, "can not be chosen"),
        ({"output_file_path": "/etc/x.png"}, None, "can not be chosen"),
        ({"model_path": "/etc"}, None, "cannot change between requests"),
        ({"api_key": "x"}, None, "cannot change between requests"),
        ({"trust_remote_code": True}, None, "cannot change between requests"),
        ({"widht": 8}, None, "width"),
        ({"width": "wide"}, "width", "a whole number"),
        ({"width": 17}, None, "17"),
        ({"seed": -1}, "seed", "seed"),
        ({"prompt": ""}, "prompt", "empty"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_request_beyond_the_limits_is_refused_by_name(client, values, param, problem):
    answer = client.post("/test/replan", json={"prompt": "a red circle", **values})

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert problem in error["message"]


def test_problem_with_a_webhook_is_said_of_its_field():
    assert api_error(RequestError("webhook_url does not apply: no secret", "leave it out")).param == "webhook_url"
    assert api_error(RequestError("nothing in particular is wrong", "ask again")).param is None


def test_request_within_the_limits_is_planned(client):
    answer = client.post("/test/replan", json={"prompt": "a red circle", "width": 32, "height": 16})

    assert answer.json() == {"width": 32, "num_requests": 1}


def test_client_that_hangs_up_is_no_defect(client, plain_server):
    before = plain_server.err.count("Traceback")
    with socket.create_connection(("127.0.0.1", plain_server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"POST /test/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
    with client.stream("GET", "/test/stream") as answer:
        next(answer.iter_raw())

    assert client.get("/liveness").status_code == 200
    assert plain_server.err.count("Traceback") == before


def test_discovery_describes_model_and_server(client):
    model = client.get("/model_info").json()
    server = client.get("/server_info").json()

    assert model["task_type"] == "T2I"
    assert model["output_types"] == ["image"]
    assert model["is_generation"] is True
    assert server["status"] == "ok"
    assert server["served_model_name"] == model["model_path"] == "demo/shapes-image"
    assert client.get("/models").json()["pipeline_class"] == "QwenImagePipeline"
    assert client.get("/stats").json()["jobs"]["queued"] == 2


def test_health_tells_of_a_job_store_that_fails(client, plain_server):
    plain_server.script("problem", "the disk is full")
    answer = client.get("/health")
    plain_server.script("problem", None)

    assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
    assert answer.json()["reason"] == "the disk is full"
