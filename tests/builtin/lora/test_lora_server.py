"""Adapters of a running server: a real one, with the embedded image model behind it."""

import base64
import io
import json
import os
import signal
from pathlib import Path

import http_process
import numpy as np
import pytest
from http_process import ServerProcess, wait_for
from lora_adapters import DEMO, demo_layers, pair_shapes, write_adapter, write_header
from PIL import Image
from real_server import RealServer

RUN = {
    "prompt": "a red circle",
    "size": "64x64",
    "num_inference_steps": 2,
    "seed": 7,
    "response_format": "b64_json",
}

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora-server")
    start = write_adapter(folder / "start.safetensors", demo_layers("attn.to_q"))
    root = folder / "adapters"
    write_adapter(root / "style.safetensors", demo_layers("attn.to_v", "img_mlp.net.2"), seed=1)
    write_adapter(root / "sub" / "deep.safetensors", demo_layers("proj_out"), seed=2)
    write_header(root / "wrong.safetensors", pair_shapes({"transformer.proj_out": (7, 7)}))
    write_adapter(folder / "secret.safetensors", demo_layers("proj_out"))
    (root / "link.safetensors").symlink_to(folder / "secret.safetensors")
    words = ["--model-path", DEMO, "--backend", "sglang", "--lora-path", str(start), "--lora-nickname", "start"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_process, "DEADLINE_S", 180.0)  # torch is loaded: slow where all else is busy
        server = RealServer(folder, *words, "--lora-root", str(root), "--lora-repo", "some-org/*")
    with server:
        yield server
        assert server.close() == 0
        assert "Traceback" not in server.err


@pytest.fixture
def http(server):
    """Return a client; every test begins and ends with the adapter that the server was started with."""
    with server.client() as client:
        yield client
        assert client.post("/v1/set_lora", json={"lora_nickname": "start"}).status_code == 200


def picture(http, **fields):
    answer = http.post("/v1/images/generations", json={**RUN, **fields})
    assert answer.status_code == 200, answer.text
    (image,) = answer.json()["data"]
    with Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) as opened:
        return np.asarray(opened)


def post(http, name, **fields):
    answer = http.post(f"/v1/{name}", json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ok"
    return answer.json()["message"]


def active(http):
    listed = http.get("/v1/list_loras").json()
    return {name: {entry["nickname"]: entry["strength"] for entry in own} for name, own in listed["active"].items()}


def test_adapter_of_the_start_is_listed_taken_out_and_merged_again(http, server):
    listed = http.get("/v1/list_loras").json()
    started = picture(http)

    assert post(http, "unmerge_lora_weights") == "taken out of transformer"
    without, told_without = picture(http), active(http)
    assert post(http, "merge_lora_weights") == "merged into transformer"

    assert listed["loaded_adapters"] == [{"nickname": "start", "path": str(server.folder / "start.safetensors")}]
    assert listed["active"]["transformer"] == [
        {
            "nickname": "start",
            "nicknames": ["start"],
            "path": str(server.folder / "start.safetensors"),
            "merged": True,
            "mode": "merged",
            "strength": 1.0,
            "strengths": [1.0],
        }
    ]
    assert told_without == {}
    assert not np.array_equal(without, started)
    assert np.array_equal(picture(http), started)
    assert np.array_equal(picture(http, lora={}), without)


def test_adapters_are_set_by_path_then_by_nickname(http):
    assert (
        post(http, "set_lora", lora_nickname="style", lora_path="style.safetensors") == "style: applied to transformer"
    )
    styled, told = picture(http), active(http)
    post(http, "set_lora", lora_nickname="style", strength=0.5, target="transformer")
    weak = picture(http)
    post(http, "set_lora", lora_nickname=["style", "deep"], lora_path=["style.safetensors", "sub/deep.safetensors"],
         strength=[1, 0.25])  # fmt: skip
    both, told_both = picture(http), active(http)
    post(http, "merge_lora_weights", strength=0.5)

    assert told == {"transformer": {"style": 1.0}}
    assert told_both == {"transformer": {"style": 1.0, "deep": 0.25}}
    assert active(http) == {"transformer": {"style": 0.5, "deep": 0.5}}
    for one, other in [(styled, weak), (weak, both), (styled, both)]:
        assert not np.array_equal(one, other)


def test_request_may_choose_among_the_loaded_adapters(http):
    post(http, "set_lora", lora_nickname="style", lora_path="style.safetensors")
    styled = picture(http)
    post(http, "set_lora", lora_nickname="start")

    assert np.array_equal(picture(http, lora={"style": 1}), styled)
    assert np.array_equal(picture(http, lora={"style@transformer": 1}), styled)
    job = http.post("/v1/images/generations", json={**RUN, "lora": {"style": 0.5}, "run_in_background": True}).json()
    assert job["settings"]["lora"] == {"style": 0.5}
    assert "lora_path" not in json.dumps(job)
    refused = http.post("/v1/images/generations", json={**RUN, "lora": {"stile": 1}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "lora"
    assert "use 'style'" in refused.json()["error"]["message"]
    refused = http.post("/v1/images/generations", json={**RUN, "lora": {"style": "much"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora")


def test_what_runs_keeps_the_adapter_it_began_with(http):
    expected = picture(http, num_inference_steps=60)

    job = http.post("/v1/images/generations", json={**RUN, "num_inference_steps": 60, "run_in_background": True}).json()
    wait_for(lambda: http.get(f"/v1/images/{job['id']}").json()["state"] != "queued", "the job to begin")
    post(http, "set_lora", lora_nickname="style", lora_path="style.safetensors")
    wait_for(lambda: http.get(f"/v1/images/{job['id']}").json()["state"] == "completed", "the job to end")

    with Image.open(io.BytesIO(http.get(f"/v1/images/{job['id']}/content").content)) as opened:
        assert np.array_equal(np.asarray(opened), expected)
    assert active(http) == {"transformer": {"style": 1.0}}


REFUSED = {
    "unknown nickname": ({"lora_nickname": "nobody"}, 404, "lora_not_found", "there is no adapter 'nobody'"),
    "folder above": ({"lora_path": "../secret.safetensors"}, 400, "lora_path_not_allowed", "not among those"),
    "absolute path": ({"lora_path": "/etc/passwd"}, 400, "lora_path_not_allowed", "not among those"),
    "link to the outside": ({"lora_path": "link.safetensors"}, 400, "lora_path_not_allowed", "not among those"),
    "nothing there": ({"lora_path": "no.safetensors"}, 400, "lora_path_not_allowed", "not among those"),
    "the root itself": ({"lora_path": "."}, 400, "lora_path_not_allowed", "not among those"),
    "zero": ({"lora_path": "a\0b"}, 400, "lora_path_not_allowed", "not among those"),
    "another repo": ({"lora_path": "other-org/lora"}, 400, "lora_path_not_allowed", "not among those"),
    "another model": ({"lora_path": "wrong.safetensors"}, 400, "invalid_request", "do not fit proj_out.weight"),
    "another component": ({"target": "transformer_2"}, 400, "invalid_value", "no 'transformer_2'"),
    "dynamic": ({"merge_mode": "dynamic"}, 400, "unsupported_parameter", "always merged"),
    "too many paths": ({"lora_path": ["style.safetensors"] * 2}, 400, "invalid_value", "'lora_path' has 2 value(s)"),
    "twice": ({"lora_nickname": ["start", "start"]}, 400, "invalid_value", "names an adapter twice"),
    "not a nickname": ({"lora_nickname": "a@b", "lora_path": "style.safetensors"}, 400, "invalid_request", "'a@b'"),
}


@pytest.mark.parametrize(("fields", "status", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_adapter_is_refused_and_nothing_changes(fields, status, code, message, http):
    before = http.get("/v1/list_loras").json()

    answer = http.post("/v1/set_lora", json={"lora_nickname": "start", **fields})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "--lora-path" not in error["message"]
    if code == "invalid_request":
        assert error["param"] == ("lora_nickname" if "nickname" in message or "@" in message else "lora_path")
    assert http.get("/v1/list_loras").json() == before


def ranks_of(server):
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"rank_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks in /proc")
def test_adapters_survive_the_end_of_the_model_s_process(http, server):
    post(http, "set_lora", lora_nickname="style", lora_path="style.safetensors")
    styled = picture(http)
    (rank,) = ranks_of(server)

    os.kill(rank, signal.SIGKILL)
    wait_for(lambda: ranks_of(server) not in ([], [rank]), "another process")
    wait_for(lambda: http.get("/health").status_code == 200, "the model")

    assert active(http) == {"transformer": {"style": 1.0}}
    assert np.array_equal(picture(http), styled)


def test_adapters_are_not_changed_while_the_model_is_not_ready(tmp_path):
    with ServerProcess(tmp_path, "--port", "0") as server:
        server.ready()
        server.script("state", "restarting:the model's process ended")
        with server.client() as http:
            answers = [
                http.post("/v1/set_lora", json={"lora_nickname": "a"}),
                http.post("/v1/merge_lora_weights", json={}),
                http.post("/v1/unmerge_lora_weights", json={}),
            ]
            listed = http.get("/v1/list_loras")

    assert [answer.status_code for answer in answers] == [503] * 3
    assert {answer.json()["error"]["code"] for answer in answers} == {"model_not_loaded"}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert listed.json() == {"loaded_adapters": [], "active": {}}
