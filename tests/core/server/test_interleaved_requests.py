"""Small requests in the middle of a large one, seen from outside, also when the model's process is killed."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from http_process import wait_for
from real_server import served

FINAL = {"completed", "failed", "cancelled"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interleaving")
    yield from served(folder, "--max-attempts", "4", kind="video", environment={"RANK_INTERLEAVES": "1"})


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def ask(client, prompt, steps, **fields):
    """Send a request; return its id."""
    body = {"prompt": prompt, "num_inference_steps": steps, "size": "32x16", "num_frames": 5, **fields}
    answer = client.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def record(client, job):
    return client.get(f"/v1/videos/{job}").json()


def over(client, job):
    """Wait until a job is over; return its record."""
    return wait_for(lambda: (found := record(client, job))["state"] in FINAL and found, f"the end of {job}")


def long_one(client, steps=500):
    """Start a request that takes long; return its id when it is at work."""
    job = ask(client, "long pause=0.1", steps)
    wait_for(lambda: record(client, job)["stage"] == "denoise", "the long one")
    return job


def rank_pid(server):
    """Return the process that holds the model, ``None`` where it is not there at the moment."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    for pid in " ".join(path.read_text() for path in children).split():
        with contextlib.suppress(OSError):
            if "rank_process" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    return None


def test_small_request_ends_while_a_large_one_runs_and_either_is_cancelled(client):
    long = long_one(client)
    small = over(client, ask(client, "small", 2))
    assert small["state"] == "completed"
    assert record(client, long)["state"] == "in_progress"

    second = ask(client, "pause=0.1", 100)
    wait_for(lambda: record(client, second)["stage"] == "denoise", "the second one")
    client.post(f"/v1/videos/{second}/cancel").raise_for_status()
    assert over(client, second)["state"] == "cancelled"
    assert record(client, long)["state"] == "in_progress"
    client.post(f"/v1/videos/{long}/cancel").raise_for_status()
    assert over(client, long)["state"] == "cancelled"


def test_times_tell_the_two_apart(client):
    long = long_one(client, 60)
    small = over(client, ask(client, "small pause=0.5", 4))
    long = over(client, long)

    assert [job["state"] for job in (small, long)] == ["completed", "completed"]
    # 2 and 6 seconds of pauses; the server hears a moment later when a run begins.
    assert small["inference_time_s"] >= 1.0
    assert 5.0 <= long["inference_time_s"] <= long["completed_at"] - long["started_at"]


def test_killed_ranks_lose_neither(server, client):
    long = long_one(client, 40)
    smalls = [ask(client, f"small {number} pause=0.05", 4 + number) for number in range(5)]
    wait_for(lambda: any(record(client, job)["state"] != "queued" for job in smalls), "one in the middle")
    os.kill(wait_for(lambda: rank_pid(server), "the model's process"), signal.SIGKILL)

    jobs = [over(client, job) for job in (*smalls, long)]

    assert {job["state"] for job in jobs} == {"completed"}
    listed = client.get("/v1/videos", params={"limit": 100}).json()["data"]
    assert {job["id"] for job in jobs} <= {job["id"] for job in listed}
    assert all(client.get(f"/v1/videos/{job['id']}/content").status_code == 200 for job in jobs)
