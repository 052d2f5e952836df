"""A server whose disk is really full, before and while it works."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from http_process import wait_for
from real_server import RealServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk):
    try:
        with (disk / "filling").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
    except OSError:
        return


def is_healthy(http):
    return http.get("/health").json() == {"status": "ok"}


def test_a_disk_that_fills_up_costs_what_is_written_then_and_nothing_else(disk, tmp_path):
    words = ("--output-path", disk / "out", "--job-store-path", disk / "jobs")
    with RealServer(tmp_path, *words) as server, server.client() as http, ThreadPoolExecutor(1) as beside:

        def make(prompt):
            return http.post("/v1/images/generations", json={"prompt": prompt, "response_format": "url"})

        assert make("before").status_code == 200
        running = beside.submit(make, "pause=0.5")
        wait_for(lambda: http.get("/v1/images").json()["data"][0]["state"] == "in_progress", "the run")
        fill(disk)
        refused = make("while nothing fits")
        wait_for(lambda: not is_healthy(http), "the server to notice")
        (disk / "filling").unlink()
        failed = running.result()
        wait_for(lambda: is_healthy(http), "the server to be well again")
        states = [job["state"] for job in http.get("/v1/images").json()["data"]]
        assert make("afterwards").status_code == 200
        files = [path for path in (disk / "out").rglob("*") if path.suffix == ".png"]

    for answer in (refused, failed):
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "output_not_written")
        assert "can not be written" in answer.json()["error"]["message"]
        assert str(disk) not in answer.text  # clients have no business with the server's folders
    assert states == ["failed", "completed"]
    assert len(files) == 2
    assert "no space is left there" in server.err
