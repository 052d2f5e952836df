"""What the page asks for beyond the API: whose jobs are shown, and content that a storage has."""

from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from sglang_core import ApiError, ApiKey, Job, JobOutput, OutputError, SglangError
from sglang_core.server.errors import answer_api_error, answer_sglang_error
from sglang_plugins_builtin.playground.job_views import JobViews


def output(index, key):
    return JobOutput(
        index=index, kind="image", media_type="image/png", width=8, height=8, num_frames=1, num_bytes=6, seed=1,
        file=None, object_key=key, receipt={"request": {"seed": 1}},
    )  # fmt: skip


def job(job_id, owner, status="completed", outputs=()):
    return Job(
        id=job_id, kind="image", operation="images.generations", created_at=1.0, settings={"prompt": f"of {owner}"},
        owner=owner, status=status, outputs=outputs, progress=0.5,
    )  # fmt: skip


JOBS = [
    job("img_a", "ann", outputs=(output(0, "bucket/a.png"), output(1, None), output(2, "bucket/lost.png"))),
    job("img_b", "bob", "queued"),
    job("img_c", "ann", "queued"),
    job("img_d", "ann", "in_progress"),
]


class Jobs:
    async def get(self, job_id, owner=None):
        return next((job for job in JOBS if job.id == job_id and owner in (None, job.owner)), None)

    async def list(self, query):
        found = [job for job in JOBS if job.status in query.statuses and query.owner in (None, job.owner)]
        return found[: query.limit]

    def queue_position(self, job_id):
        return {"img_b": 0, "img_c": 1}.get(job_id)

    def wait_s(self, job_id):
        return 2.5

    def statistics(self):
        return SimpleNamespace(queued=2, running=1)


class Storage:
    def read(self, key, start=0, length=None):
        if "lost" in key:
            raise OutputError("the bucket is gone", "make it again")
        yield from (b"abc", b"def")


@pytest.fixture
def ask():
    """Ask for an address with the key of a name; ``None``: a server without keys."""

    def ask(path, name=None, scopes=("generate",), storage=None):
        key = None if name is None else ApiKey(name=name, scopes=frozenset(scopes))
        server = SimpleNamespace(
            jobs=Jobs(), storage=storage, plan=SimpleNamespace(kind="image"), api_key_of=lambda request: key
        )
        handlers = {ApiError: answer_api_error, SglangError: answer_sglang_error}
        with TestClient(Starlette(routes=JobViews(server).routes(), exception_handlers=handlers)) as client:
            return client.get(path)

    return ask


def test_queue_shows_what_runs_and_then_what_waits_in_its_order(ask):
    answer = ask("/playground/api/queue").json()

    assert [(entry["id"], entry["state"], entry["queue_position"]) for entry in answer["jobs"]] == [
        ("img_d", "in_progress", None),
        ("img_b", "queued", 0),
        ("img_c", "queued", 1),
    ]
    assert answer["jobs"][0]["progress"] == 50
    assert (answer["num_queued"], answer["num_running"]) == (2, 1)


def test_client_sees_its_own_jobs_and_an_administrator_all(ask):
    def shown(*who):
        return [entry["id"] for entry in ask("/playground/api/queue", *who).json()["jobs"]]

    assert shown("bob") == ["img_b"]
    assert shown("carol", ("generate", "admin")) == ["img_d", "img_b", "img_c"]
    assert ask("/playground/api/receipts/img_a", "bob").status_code == 404
    assert ask("/playground/api/content/img_a/0", "bob", ("generate",), Storage()).status_code == 404


def test_receipt_of_each_output_is_shown(ask):
    answer = ask("/playground/api/receipts/img_a", "ann")

    assert answer.json() == {"id": "img_a", "receipts": [{"request": {"seed": 1}}] * 3}


@pytest.mark.parametrize("job_id", ["img_x", "a.b", "%27%20or%201", "x" * 200])
def test_unknown_job_is_said_to_be_none(ask, job_id):
    answer = ask(f"/playground/api/receipts/{job_id}")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "job_not_found"


def test_uploaded_content_is_handed_through(ask):
    answer = ask("/playground/api/content/img_a/0", "ann", ("generate",), Storage())

    assert (answer.content, answer.headers["content-type"]) == (b"abcdef", "image/png")
    assert ask("/playground/api/content/img_a/1", "ann", ("generate",), Storage()).status_code == 404
    assert ask("/playground/api/content/img_a/0", "ann").status_code == 404


def test_storage_that_can_not_be_read_is_an_error_and_no_half_file(ask):
    answer = ask("/playground/api/content/img_a/2", "ann", ("generate",), Storage())

    assert answer.status_code >= 500
    assert "bytes" not in answer.headers.get("content-type", "")
