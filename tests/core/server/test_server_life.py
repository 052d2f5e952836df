import contextlib
import json
import os
import signal
import socket
import threading

import httpx
import pytest
from http_process import DEADLINE_S, wait_for


def test_answers_while_the_model_is_looked_for_and_loaded(start):
    server = start()
    server.script("planning")
    server.script("state", "starting:reading weights")
    server.listening()
    with server.client() as client:
        alive = client.get("/liveness")
        early = client.get("/health")
        other = client.get("/v1/models")

        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
        assert (early.status_code, early.json()["status"]) == (503, "starting")
        assert early.json()["reason"] == "the model is being looked for"
        assert (other.status_code, other.json()["error"]["code"]) == (503, "server_starting")
        assert other.headers["retry-after"] == "1"
        server.script("planning", None)
        loading = wait_for(lambda: "weights" in client.get("/health").text and client.get("/health"), "planning")
        assert (loading.status_code, loading.json()["reason"]) == (503, "reading weights")
        server.script("state", "starting")
        assert client.get("/health").json()["reason"] == "the model is being loaded: fetch (25 %)"
        assert client.get("/liveness").status_code == 200

        server.script("state", "ready")
        wait_for(lambda: client.get("/health").status_code == 200, "the model")
        assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("state", ["restarting", "failed"])
def test_health_says_why_a_request_would_not_run(start, state):
    server = start().ready()
    server.script("state", f"{state}:the process was killed by signal 9")

    with server.client() as client:
        answers = [client.get(path) for path in ("/health", "/health_generate")]

    for answer in answers:
        assert answer.status_code == 503
        assert answer.json() == {
            "status": state,
            "reason": "the process was killed by signal 9",
            "remedy": "wait a moment",
        }


def test_http_process_imports_nothing_heavy(client):
    heavy = {"torch", "numpy", "diffusers", "transformers", "PIL", "av", "huggingface_hub"}

    assert not heavy & set(client.get("/test/modules").json())


def test_model_that_does_not_load_ends_the_server(start):
    server = start()
    server.script("state", "starting")
    server.script("fail", "the weights are damaged")

    assert server.ended() == 4
    assert "sglang: the weights are damaged\nTry: use another model" in server.err
    assert "Traceback" not in server.err


def test_unknown_model_ends_the_server(start, tmp_path):
    server = start("--model-path", tmp_path / "nowhere")

    assert server.ended() == 4
    assert "nowhere" in server.err
    assert "Traceback" not in server.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_before_the_end(start, number):
    server = start().ready()
    server.script("running")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(httpx.get(f"{server.url}/test/slow", timeout=DEADLINE_S)))
    thread.start()
    wait_for(lambda: "slow_began" in os.listdir(server.folder), "the request")

    server.process.send_signal(number)
    wait_for(lambda: "stopping" in server.err, "the signal")
    server.script("running", None)

    assert server.ended() == 0
    thread.join()
    assert (answers[0].status_code, answers[0].text) == (200, "done")
    assert (server.folder / "jobs_stopped").read_text() == "finished"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/liveness")


def test_what_does_not_end_within_the_limit_is_parked(start):
    server = start("--graceful-timeout-s", "0.2").ready()
    server.script("running")

    assert server.stop() == 0
    assert (server.folder / "jobs_stopped").read_text() == "parked"
    assert (server.folder / "supervisor_stopped").read_text() == "0.2"


def test_second_signal_ends_at_once(start):
    server = start("--graceful-timeout-s", "3600").ready()
    server.script("running")
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "a second signal stops at once" in server.err, "the signal")

    assert server.stop() == 130
    assert "stopping at once" in server.err
    assert (server.folder / "supervisor_stopped").read_text() == "0"


def test_signal_while_the_model_is_looked_for_ends_the_server(start):
    server = start()
    server.script("planning")
    server.listening()

    assert server.stop() == 0


def test_stopping_server_refuses_new_work_on_open_connections(start):
    server = start().ready()
    server.script("running")
    answers = []
    slow = threading.Thread(target=lambda: answers.append(httpx.get(f"{server.url}/test/slow", timeout=DEADLINE_S)))
    slow.start()
    wait_for(lambda: "slow_began" in os.listdir(server.folder), "the request")
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"POST /test/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in server.err, "the signal")
        with contextlib.suppress(ConnectionError):  # the server may have hung up before the rest is sent
            connection.sendall(b"\r\nab")
            while part := connection.recv(4096):
                answer += part

    assert answer == b"" or answer.startswith(b"HTTP/1.1 503")
    server.script("running", None)
    slow.join()
    assert server.ended() == 0
    assert answers[0].text == "done"


def test_taken_port_is_refused_naming_who_has_it(start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = start("--port", str(port))

        assert server.ended() == 5
    assert f"the port {port} is taken by process {os.getpid()}" in server.err
    assert f"Try: stop that process, or choose another port: --port {port + 1}" in server.err


@pytest.mark.parametrize(
    ("words", "code", "problem", "remedy"),
    [
        (["--host", "no.such.host.invalid"], 2, "no address has this name", "127.0.0.1"),
        (["--host", "203.0.113.7"], 2, "is no address of this machine", "0.0.0.0"),
        (["--port", "70000"], 2, "--port: ", "port"),
        (["--fd", "77"], 2, "--fd 77 is no open socket", "a socket that listens"),
        (["--uds", "/nowhere/at/all.sock"], 5, "the socket can not be made", "a folder that exists"),
        (["--uds", "/tmp/" + "x" * 120], 2, "at most 107 bytes", "shorter"),
        (["--ssl-certfile", "/no/cert.pem"], 2, "there is no such file", "check the path"),
        (["--ssl-keyfile", "/no/key.pem"], 2, "without a certificate", "--ssl-certfile"),
        (["--api-key-file", "/no/keys.yaml"], 2, "there is no such file", "check the path"),
        (["--rate-limit", "often"], 2, "60/minute", "rate_limit"),
        (["--cors-origin", "example.com"], 2, "https://app.example.com", "cors_origin"),
        (["--public-url", "ftp://x"], 2, "https://images.example.com", "public_url"),
        (["--trusted-host", "a b"], 2, "host name", "trusted_host"),
        (["--strict-ports", "false"], 2, "can not be turned off", "--port 0"),
        (["--output-path", ""], 2, "needs a folder", "--output-path"),
        (["--output-file-name", "x.png"], 2, "does not apply", "leave it out"),
        (["--no-save-output"], 2, "does not apply", "--job-retention"),
        (["--uds", "s.sock", "--port", "1"], 2, "--port does not apply", "leave one of them out"),
        (["--seed", "1"], 2, "--seed", ""),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_setting_is_one_sentence(sglang, tmp_path, monkeypatch, words, code, problem, remedy):
    monkeypatch.chdir(tmp_path)

    done = sglang("serve", *words)

    assert done.code == code
    assert problem in done.err
    assert remedy in done.err
    assert done.err.startswith("sglang: ")
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not list(tmp_path.iterdir())


def test_public_address_without_key_is_warned_of(start):
    assert "everyone who reaches http://0.0.0.0:" in start("--host", "0.0.0.0").ready().err
    assert "everyone" not in start("--host", "0.0.0.0", environment={"SGLANG_API_KEY": "k" * 32}).ready().err


def test_every_address_of_a_name_is_served(start):
    server = start("--host", "localhost").ready()

    assert httpx.get(f"http://127.0.0.1:{server.port}/liveness").status_code == 200


def test_unix_socket_is_served_and_removed(start, tmp_path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))  # of a server that was killed
    server = start("--uds", str(path)).listening()

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any.name") as client:
        assert client.get("/liveness").status_code == 200
        wait_for(lambda: client.get("/health").status_code == 200, "the model")
        assert client.get("/test/url").json() == {"url": "http://any.name/v1/x"}
    second = start("--uds", str(path))
    assert second.ended() == 5
    assert "another server listens there" in second.err
    assert server.stop() == 0
    assert not path.exists()


def test_file_in_place_of_the_unix_socket_is_left_alone(start, tmp_path):
    path = tmp_path / "notes"
    path.write_text("mine")

    server = start("--uds", str(path))

    assert server.ended() == 5
    assert "a file of this name exists and is no socket" in server.err
    assert path.read_text() == "mine"


def test_inherited_socket_is_served(start):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = start("--fd", str(listener.fileno()), pass_fds=(listener.fileno(),)).listening()

        assert httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/liveness").status_code == 200
        assert server.stop() == 0


def test_broken_plugin_keeps_the_server_from_starting(start):
    server = start(environment={"SCRIPT_BROKEN": "1"})

    assert server.ended() == 3
    assert "plugin 'broken'" in server.err
    assert "--disable-plugin broken" in server.err


def test_log_in_json_has_the_fields_of_every_request(start):
    server = start("--log-format", "json").ready()
    with server.client() as client:
        client.get("/test/boom?token=secret", headers={"X-Request-Id": "mine-1"})
    server.stop()

    records = [json.loads(line) for line in server.err.splitlines()]
    access = [record for record in records if record.get("path") == "/test/boom"]
    assert [(r["status"], r["request_id"], r["method"], r["route"]) for r in access] == [
        (500, "mine-1", "GET", "/test/boom")
    ]
    assert any("RuntimeError: secret detail 4711" in record.get("exception", "") for record in records)
    assert "token=secret" not in server.err


def test_paths_can_be_left_out_of_the_access_log(start):
    server = start("--access-log-exclude-prefixes", "/health", "/liveness").ready()
    with server.client() as client:
        client.get("/model_info")
    server.stop()

    assert "GET /model_info" in server.err
    assert "GET /health" not in server.err


def test_secrets_are_not_printed(start):
    server = start("--api-key", "sk-very-secret-4711", "--print-config")

    out = server.process.stdout.read()
    assert server.ended() == 0
    assert "4711" not in out + server.err
