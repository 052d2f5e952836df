"""Both stores keep the contract; the database says in words what is wrong with it."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from attrs import evolve

from sglang_core import Job, JobQuery, OutputError
from sglang_core.testing import check_job_store
from sglang_plugins_builtin.sqlite_jobs.database import FILE_NAME, SqliteJobs
from sglang_plugins_builtin.sqlite_jobs.stores import MemoryJobStore, SqliteJobStore


def a_job(job_id="a", **values):
    return Job(id=job_id, kind="image", operation="images.generations", created_at=1.0, settings={}, **values)


@pytest.mark.parametrize("store", [SqliteJobStore(), MemoryJobStore()], ids=lambda store: store.name)
def test_store_keeps_the_contract(store, tmp_path):
    check_job_store(store, tmp_path / "jobs")


def test_a_second_server_is_refused_and_told_who_has_the_store(tmp_path):
    opened = SqliteJobs(tmp_path)
    try:
        with pytest.raises(OutputError) as refused:
            SqliteJobs(tmp_path)
    finally:
        opened.close()

    assert refused.value.problem == (
        f"the job store {str(tmp_path)!r} is in use by another server (process {os.getpid()})"
    )
    assert "--job-store-path" in refused.value.remedy
    SqliteJobs(tmp_path).close()


def run_python(code: str, *words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)], stdout=subprocess.PIPE, text=True
    )


def test_what_create_has_returned_survives_kill_9(tmp_path):
    code = """
        import pathlib, sys, time
        from sglang_core import Job
        from sglang_plugins_builtin.sqlite_jobs.database import SqliteJobs
        store = SqliteJobs(pathlib.Path(sys.argv[1]))
        for i in range(10**6):
            store.create(Job(id=str(i), kind="image", operation="o", created_at=i, settings={"prompt": "x" * 500}))
            print(i, flush=True)
    """
    process = run_python(code, tmp_path)
    acknowledged = [process.stdout.readline() for _ in range(50)]
    process.kill()
    acknowledged += process.stdout.readlines()
    process.wait()
    process.stdout.close()

    store = SqliteJobs(tmp_path)
    last = int([line for line in acknowledged if line.endswith("\n")][-1])
    kept = {job.id for job in store.list(JobQuery(limit=10**6))}
    store.close()
    assert {str(i) for i in range(last + 1)} <= kept


def test_a_locked_database_is_an_error_that_says_so_and_works_again(tmp_path, monkeypatch):
    monkeypatch.setattr("sglang_plugins_builtin.sqlite_jobs.database.LOCK_TIMEOUT_S", 0.05)
    store = SqliteJobs(tmp_path)
    code = """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        print("locked", flush=True)
        input()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / FILE_NAME)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    with pytest.raises(OutputError) as refused:
        store.create(a_job())
    process.communicate("\n")

    assert refused.value.problem == f"job store {str(tmp_path / FILE_NAME)!r}: another program has it locked"
    assert "end the program that has it open" in refused.value.remedy
    assert store.create(a_job()).id == "a"
    store.close()


def test_a_full_disk_is_an_error_that_says_so_and_nothing_is_lost(tmp_path):
    """SQLite's own limit of pages stands for the disk: it answers both in the same way."""
    store = SqliteJobs(tmp_path)
    store.create(a_job("before"))
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutputError) as refused:
        store.create(a_job("large", api={"text": "x" * 100_000}))

    assert refused.value.problem == f"job store {str(tmp_path / FILE_NAME)!r}: no space is left there"
    assert "free some space" in refused.value.remedy
    assert [job.id for job in store.list(JobQuery())] == ["before"]
    store._connection.execute("PRAGMA max_page_count=100000")
    store.create(a_job("after"))
    store.close()


def test_a_log_that_may_not_grow_is_an_error_and_nothing_is_lost(tmp_path):
    """A limit of the process on the size of files, met in a process of its own."""
    code = """
        import pathlib, resource, sys
        from attrs import evolve
        from sglang_core import Job, JobQuery, OutputError
        from sglang_plugins_builtin.sqlite_jobs.database import SqliteJobs
        store = SqliteJobs(pathlib.Path(sys.argv[1]))
        job = Job(id="a", kind="image", operation="o", created_at=1, settings={})
        store.create(job)
        size = (pathlib.Path(sys.argv[1]) / "jobs.sqlite3-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, resource.RLIM_INFINITY))
        try:
            store.create(evolve(job, id="b", api={"text": "x" * 200_000}))
        except OutputError as error:
            print(error.problem, "|", error.remedy)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.create(evolve(job, id="c"))
        print([job.id for job in store.list(JobQuery(order="asc"))])
        store.close()
    """
    out, _ = run_python(code, tmp_path).communicate()

    assert "jobs.sqlite3': the disk refuses | see that the disk is well and has space" in out
    assert "['a', 'c']" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        store = SqliteJobs(disk / "jobs")
        kept = []

        def fill():
            for i in range(1000):
                kept.append(store.create(a_job(f"{i}", api={"text": "x" * 5000})).id)

        with pytest.raises(OutputError) as refused:
            fill()
        assert "no space is left there" in refused.value.problem or "the disk refuses" in refused.value.problem
        assert [job.id for job in store.list(JobQuery(order="asc", limit=1000))] == kept
        store.close()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("content", [b"no database" * 1000, b""], ids=["foreign", "empty"])
def test_what_is_no_database_is_refused_or_made_one(content, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(content)
    if not content:
        SqliteJobs(tmp_path).close()
        return
    with pytest.raises(OutputError) as refused:
        SqliteJobs(tmp_path)

    assert refused.value.problem == f"job store {str(tmp_path / FILE_NAME)!r}: it is damaged"
    assert f"sqlite3 {tmp_path / FILE_NAME} .recover" in refused.value.remedy
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_damage_is_found_after_a_sudden_end_and_the_file_is_left_as_it_is(tmp_path):
    store = SqliteJobs(tmp_path)
    for i in range(200):
        store.create(a_job(f"{i}", api={"text": "x" * 500}))
    store.close()
    (tmp_path / "lock").write_text("12345\n")  # as kill -9 leaves it
    path = tmp_path / FILE_NAME
    damaged = bytearray(path.read_bytes())
    damaged[4096 * 5 : 4096 * 20] = os.urandom(4096 * 15)
    path.write_bytes(damaged)
    for _ in range(2):  # the next start looks again
        with pytest.raises(OutputError, match="it is damaged"):
            SqliteJobs(tmp_path)

    assert path.read_bytes() == damaged


def test_another_program_s_database_is_left_alone(tmp_path):
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(OutputError, match="is not a job store"):
        SqliteJobs(tmp_path)


def test_a_newer_store_is_refused(tmp_path):
    SqliteJobs(tmp_path).close()
    newer = sqlite3.connect(tmp_path / FILE_NAME)
    newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(OutputError) as refused:
        SqliteJobs(tmp_path)

    assert refused.value.problem.endswith("has version 99, this program knows up to 1")
    assert "update sglang-plugins" in refused.value.remedy


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a part of the path is a file, not a folder"):
        SqliteJobs(tmp_path / "file" / "jobs")


def test_an_operator_can_read_while_the_server_writes(tmp_path):
    store = SqliteJobs(tmp_path)
    store.create(a_job())
    reader = sqlite3.connect(f"file:{tmp_path / FILE_NAME}?mode=ro", uri=True)
    assert reader.execute("SELECT id, status FROM jobs").fetchall() == [("a", "queued")]
    reader.close()
    store.close()


def test_a_flush_holds_nobody_up(tmp_path, monkeypatch):
    store = SqliteJobs(tmp_path)
    may_end = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: may_end.wait(60))
    flush = threading.Thread(target=store.flush)
    flush.start()
    store.create(a_job())
    assert flush.is_alive()
    may_end.set()
    flush.join()
    store.close()


def test_a_record_costs_less_than_a_millisecond(tmp_path):
    """Creation, start, progress and end together; of a quick tenth, since a busy machine is no cost of a record."""
    store = SqliteJobs(tmp_path)
    seconds = []
    for i in range(150):
        job = a_job(f"{i}", api={"size": "1024x1024", "model": "m"}, owner="ana", idempotency_key=f"{i}")
        started = time.perf_counter()
        store.create(job)
        store.change(job.id, lambda job: evolve(job, status="in_progress", started_at=2.0, attempts=1))
        store.change(job.id, lambda job: evolve(job, progress=0.5, stage="denoise"))
        store.change(job.id, lambda job: evolve(job, status="completed", progress=1.0, completed_at=3.0))
        seconds.append(time.perf_counter() - started)
    store.close()
    cost_ms = sorted(seconds)[len(seconds) // 10] * 1000
    print(f"{cost_ms:.3f} ms")

    assert cost_ms < 1.0


def test_the_log_is_written_back_while_the_store_is_in_use(tmp_path):
    store = SqliteJobs(tmp_path)
    try:
        for index in range(700):
            store.create(a_job(str(index)))
        deadline = time.monotonic() + 60
        while (tmp_path / FILE_NAME).stat().st_size < 100_000:  # at first all of it is in the log
            assert time.monotonic() < deadline
            store.change("0", lambda job: evolve(job, progress=min(1.0, job.progress + 0.001)))
    finally:
        store.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoints"]
