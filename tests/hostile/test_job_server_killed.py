"""``kill -9`` at random moments: no accepted job is lost, none ends twice, no file is left over.

The short form runs with every test, a hundred rounds with ``tox -e hostile``.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import job_server
import pytest

from sglang_core import JobQuery
from sglang_plugins_builtin.sqlite_jobs.stores import SqliteJobStore

NUM_ROUNDS = 100 if os.environ.get("SGLANG_TEST_LONG") == "1" else 4


def start(folder: Path, *words: object) -> "subprocess.Popen[str]":
    script = Path(job_server.__file__)
    environment = {**os.environ, "PYTHONPATH": str(script.parent)}
    return subprocess.Popen(
        [sys.executable, script, folder, *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.timeout(300 + 20 * NUM_ROUNDS)
def test_killed_servers_lose_no_job(tmp_path):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "holiday.png").write_bytes(b"mine")
    chance = random.Random(11)
    said: list[str] = []
    for number in range(NUM_ROUNDS):
        process = start(tmp_path, number + 1)
        wanted, line = "started" if number else "accepted", ""  # there is at least one job to lose
        while not line.startswith(wanted):
            said.append(line := process.stdout.readline())
            assert line
        time.sleep(chance.uniform(0.0, 0.5))  # the moment is the point of the test
        process.kill()
        said += process.stdout.readlines()
        process.wait()
        process.stdout.close()
    with start(tmp_path, 0, "drain") as last:
        try:
            said += last.communicate(timeout=240)[0].splitlines(keepends=True)
        finally:
            last.kill()
    words = [line.split() for line in said if line.endswith("\n")]

    store = SqliteJobStore().open(tmp_path / "store")
    jobs = {job.id: job for job in store.list(JobQuery(limit=10**6))}
    store.close()
    assert last.returncode == 0
    deleted = {word[1] for word in words if word[0] == "delete"}
    accepted = {word[1] for word in words if word[0] == "accepted"}
    assert accepted
    assert accepted - deleted <= set(jobs)
    assert {job.status for job in jobs.values()} <= {"completed", "failed", "cancelled"}

    over = [(word[1], word[2]) for word in words if word[0] == "over"]
    assert len({job_id for job_id, _ in over}) == len(over)
    assert all(jobs[job_id].status == status for job_id, status in over if job_id in jobs)

    listed = {output.file for job in jobs.values() for output in job.outputs}
    uploads = {name for job in jobs.values() for name in job.input_files}
    outputs_here = {path.name for path in (tmp_path / "outputs").iterdir()}
    uploads_here = {path.name for path in (tmp_path / "inputs").iterdir()}
    assert outputs_here - listed == {"holiday.png"}
    assert uploads_here - uploads <= {".sglang-jobs"}
    # A deletion takes the files first: killed in between it leaves a record without files, which can be deleted again.
    assert {name[:38] for name in (listed - outputs_here) | (uploads - uploads_here)} <= deleted
