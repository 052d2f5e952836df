"""What every job store must do, as a function that raises ``AssertionError`` with a sentence."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from attrs import evolve

from ..errors import OutputError
from ..jobs.records import Job, JobError, JobOutput, JobStatus, WebhookState
from ..jobs.store import JobQuery, JobStore, OpenJobStore
from .contracts import _check_light, _require

_NUM_THREADS, _NUM_ROUNDS = 4, 15


def check_job_store(store: JobStore, location: Path) -> None:
    """Keep, change, list, count and delete jobs, from several threads, and find them again if the store is durable.

    :param location: a folder for the store that is empty or does not exist.
    """
    before = set(sys.modules)
    availability = store.probe()
    _check_light(store.name, "probe", before)
    _require(availability.is_available, f"{store.name} cannot be checked here: {availability.reason}")
    opened = store.open(location)
    try:
        _check_records(store.name, opened)
        _check_changes(store.name, opened)
        _check_idempotency(store.name, opened)
        _check_lists(store.name, opened)
        _check_threads(store.name, opened)
        _check_durability(store, opened, location)
    finally:
        opened.close()
        opened.close()


def _job(job_id: str, **changes: Any) -> Job:
    job = Job(
        id=job_id, kind="image", operation="images.generations", created_at=1.5, settings={"prompt": "ein Würfel, 円"}
    )
    return evolve(job, **changes)


def _full_job() -> Job:
    """Return a job with every field set."""
    output = JobOutput(
        index=0,
        kind="video",
        media_type="video/mp4",
        width=64,
        height=32,
        num_frames=5,
        num_bytes=1234,
        seed=7,
        file="full.mp4",
        fps=8.0,
        url="https://example.test/full.mp4",
        object_key="full.mp4",
        upload_error="slow",
        receipt={"request": {"seed": 7, "size": [64, 32]}},
    )
    return _job(
        "full",
        kind="video",
        operation="videos",
        api={"seconds": "1", "nested": {"list": [1, 2.5, None, True]}},
        owner="ana",
        priority=3,
        idempotency_key="key-full",
        request_digest="abc",
        webhook_url="https://example.test/hook",
        webhook=WebhookState(attempts=2, next_at=3.25, problem="no"),
        attempts=1,
        progress=0.25,
        stage="denoise",
        started_at=2.0,
        completed_at=3.0,
        expires_at=4.0,
        outputs=(output, evolve(output, index=1)),
        error=JobError(code="failed", message="Größe", remedy="smaller"),
        timings_s={"denoise": 1.25},
        peak_memory_bytes=10**10,
        input_files=("full_0.png",),
    )


def _check_records(name: str, store: OpenJobStore) -> None:
    for job in (_job("plain"), _full_job()):
        _require(store.get(job.id) is None, f"{name}: it has a job {job.id!r} that nobody made")
        _require(store.create(job) == job, f"{name}: create does not return the job")
        _require(store.get(job.id) == job, f"{name}: the job {job.id!r} reads back as {store.get(job.id)!r}")
        _require(store.delete(job.id) == job, f"{name}: delete does not return the job")
        _require(store.get(job.id) is None, f"{name}: a deleted job is still there")
        _require(store.delete(job.id) is None, f"{name}: deleting a job that is gone returns one")
    _require(store.change("plain", lambda job: job) is None, f"{name}: changing a job that is gone returns one")


def _check_changes(name: str, store: OpenJobStore) -> None:
    store.create(_job("changed"))
    begun = store.change("changed", lambda job: evolve(job, status="in_progress", started_at=2.0))
    _require(begun is not None and begun.status == "in_progress", f"{name}: change does not return the changed job")
    _require(store.get("changed") == begun, f"{name}: a change is not kept")
    _require(store.change("changed", lambda job: job) == begun, f"{name}: a change that changes nothing does")

    def fail(job: Job) -> Job:
        raise KeyError("mine")

    try:
        store.change("changed", fail)
    except KeyError:
        pass
    else:
        raise AssertionError(f"{name}: what a change raises does not reach the caller")
    store.change("changed", lambda job: evolve(job, status="completed", progress=1.0))
    statuses: tuple[JobStatus, ...] = ("queued", "in_progress", "cancelling", "failed", "cancelled")
    for status in statuses:
        _expect_refusal(name, store, "changed", status)
    _require(store.get("changed").status == "completed", f"{name}: a refused change is kept")  # type: ignore[union-attr]
    noted = store.change("changed", lambda job: evolve(job, expires_at=9.0))
    _require(noted is not None and noted.expires_at == 9.0, f"{name}: a job that is over takes no note any more")
    store.delete("changed")


def _expect_refusal(name: str, store: OpenJobStore, job_id: str, status: JobStatus) -> None:
    try:
        store.change(job_id, lambda job: evolve(job, status=status))
    except ValueError:
        return
    raise AssertionError(f"{name}: a completed job becomes {status}")


def _check_idempotency(name: str, store: OpenJobStore) -> None:
    first = store.create(_job("first", owner="ana", idempotency_key="k"))
    again = store.create(_job("second", owner="ana", idempotency_key="k"))
    _require(again == first, f"{name}: a used idempotency key gives another job")
    _require(store.get("second") is None, f"{name}: the job of a used idempotency key is kept")
    _require(store.find("ana", "k") == first, f"{name}: a job is not found by its idempotency key")
    for owner in ("bob", None):
        _require(store.find(owner, "k") is None, f"{name}: {owner} finds the job of another owner by its key")
        other = store.create(_job(f"of-{owner}", owner=owner, idempotency_key="k"))
        _require(other.id == f"of-{owner}", f"{name}: owners do not have idempotency keys of their own")
        _require(store.find(owner, "k") == other, f"{name}: {owner} does not find the job of its key")
        store.delete(other.id)
    store.delete("first")
    _require(store.find("ana", "k") is None, f"{name}: a deleted job is found by its key")
    _require(store.create(_job("third", owner="ana", idempotency_key="k")).id == "third", f"{name}: a key stays used")
    store.delete("third")


def _check_lists(name: str, store: OpenJobStore) -> None:
    jobs = [
        _job(f"{i}", created_at=float(i // 2), owner="ana" if i % 3 else None, kind="video" if i % 2 else "image")
        for i in range(9)
    ]
    for job in [*jobs[4:], *jobs[:4]]:
        store.create(job)
    # Of one time as they came: 8 came before 0 to 3, but is later in time.
    expected = [str(i) for i in range(9)]
    _require(_ids(store, JobQuery(order="asc")) == expected, f"{name}: the list is not in the order of creation")
    _require(_ids(store, JobQuery()) == expected[::-1], f"{name}: the list in descending order is no mirror")
    orders: tuple[Literal["asc", "desc"], ...] = ("asc", "desc")
    for order in orders:
        pages: list[str] = []
        after: str | None = None
        while page := _ids(store, JobQuery(order=order, limit=2, after=after)):
            pages += page
            after = page[-1]
        _require(pages == _ids(store, JobQuery(order=order)), f"{name}: the pages of a list are not the list: {pages}")
    videos = _ids(store, JobQuery(kind="video", owner="ana", order="asc"))
    _require(videos == ["1", "5", "7"], f"{name}: the videos of one owner are listed as {videos}")
    _require(_ids(store, JobQuery(after="nobody")) == [], f"{name}: the page after an unknown job is not empty")
    _require(
        _ids(store, JobQuery(after="0", owner="ana")) == [], f"{name}: a page after another owner's job is not empty"
    )
    store.change("4", lambda job: evolve(job, status="cancelled"))
    _require(_ids(store, JobQuery(statuses={"cancelled", "failed"})) == ["4"], f"{name}: the list by status is wrong")
    counts = store.count({"cancelled", "failed"}), store.count({"queued"}), store.count(())
    _require(counts == (1, 8, 0), f"{name}: the jobs of a status are counted wrongly: {counts}")
    for job in jobs:
        store.delete(job.id)


def _ids(store: OpenJobStore, query: JobQuery) -> list[str]:
    return [job.id for job in store.list(query)]


def _check_threads(name: str, store: OpenJobStore) -> None:
    """Let threads count on one job: each change must see the one before."""
    store.create(_job("counter"))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(_NUM_ROUNDS):
                store.change("counter", lambda job: evolve(job, attempts=job.attempts + 1))
                store.create(_job(f"{number}-{i}"))
                store.list(JobQuery(limit=3))
                store.flush()
                store.delete(f"{number}-{i}")
        except BaseException as error:  # for the thread that waits
            failures.append(error)

    _join([threading.Thread(target=work, args=(number,)) for number in range(_NUM_THREADS)])
    _require(not failures, f"{name}: it fails when several threads use it: {failures[:1]!r}")
    counter = store.delete("counter")
    expected = _NUM_THREADS * _NUM_ROUNDS
    _require(counter is not None and counter.attempts == expected, f"{name}: changes of several threads are lost")


def _join(threads: list[threading.Thread]) -> None:
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _check_durability(store: JobStore, opened: OpenJobStore, location: Path) -> None:
    _require((opened.identity is not None) == store.is_durable, f"{store.name}: only a durable store has an identity")
    if not store.is_durable:
        return
    _expect_in_use(store, lambda: store.open(location))
    job, identity = opened.create(_full_job()), opened.identity
    opened.flush()
    opened.close()
    again = store.open(location)
    try:
        _require(again.get(job.id) == job, f"{store.name}: a job does not outlive the closing of the store")
        _require(again.identity == identity, f"{store.name}: the identity of the store changes")
        _require(again.find("ana", "key-full") == job, f"{store.name}: idempotency keys do not outlive the closing")
    finally:
        again.close()


def _expect_in_use(store: JobStore, open_again: Callable[[], OpenJobStore]) -> None:
    try:
        second = open_again()
    except OutputError as error:
        _require(bool(error.remedy), f"{store.name}: it is in use, and no remedy is given")
        return
    second.close()
    raise AssertionError(f"{store.name}: a second server can open it")
