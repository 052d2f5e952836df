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


def job(job_id, owner, status="completed", outputs=(), input_files=(), **settings):
    return Job(
        id=job_id, kind="image", operation="images.generations", created_at=1.0, owner=owner, status=status,
        settings={"prompt": f"of {owner}", **settings}, outputs=outputs, progress=0.5, input_files=input_files,
    )  # fmt: skip


JOBS = [
    job("img_a", "ann", outputs=(output(0, "bucket/a.png"), output(1, None), output(2, "bucket/lost.png"))),
    job("img_b", "bob", "queued"),
    job("img_c", "ann", "queued"),
    job("img_d", "ann", "in_progress"),
    job("img_e", "ann", input_files=("img_e_0.png", "img_e_1.jpeg", "img_e_2.webp"), mask_path="/in/img_e_2.webp"),
    job("img_f", "ann", input_files=("img_f_0.png",)),
    job("img_g", "ann", input_files=("../secret.png", "link.png", "/etc/passwd", "page.html", "folder.png", "a\0.png")),
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
def inputs(tmp_path):
    """Write the input folder of the server; what is beside it is none of its business."""
    folder = tmp_path / "inputs"
    (folder / "folder.png").mkdir(parents=True)
    for name in ("img_e_0.png", "img_e_1.jpeg", "img_e_2.webp", "page.html", "../secret.png"):
        (folder / name).write_text(f"content of {name}")
    (folder / "link.png").symlink_to("../secret.png")
    return folder


@pytest.fixture
def ask(inputs):
    """Ask for an address with the key of a name; ``None``: a server without keys."""

    def ask(path, name=None, scopes=("generate",), storage=None):
        key = None if name is None else ApiKey(name=name, scopes=frozenset(scopes))
        server = SimpleNamespace(
            jobs=Jobs(), storage=storage, plan=SimpleNamespace(kind="image"), api_key_of=lambda request: key,
            input_folder=inputs,
        )  # fmt: skip
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


def test_inputs_of_a_job_are_told_and_handed_out(ask):
    assert ask("/playground/api/inputs/img_a", "ann").json() == {"id": "img_a", "inputs": []}
    assert ask("/playground/api/inputs/img_e", "ann").json()["inputs"] == [
        {"index": 0, "role": "image", "is_there": True, "media_type": "image/png"},
        {"index": 1, "role": "image", "is_there": True, "media_type": "image/jpeg"},
        {"index": 2, "role": "mask", "is_there": True, "media_type": "image/webp"},
    ]
    answer = ask("/playground/api/inputs/img_e/1", "ann")
    assert (answer.text, answer.headers["content-type"]) == ("content of img_e_1.jpeg", "image/jpeg")
    assert ask("/playground/api/inputs/img_e/3", "ann").json()["error"]["code"] == "input_not_found"


def test_inputs_are_their_owner_s_and_an_administrator_s(ask):
    for path in ("/playground/api/inputs/img_e", "/playground/api/inputs/img_e/0"):
        assert ask(path, "bob").json()["error"]["code"] == "job_not_found"
        assert ask(path, "carol", ("generate", "admin")).status_code == 200


def test_input_that_is_gone_is_said_to_be(ask):
    [entry] = ask("/playground/api/inputs/img_f", "ann").json()["inputs"]
    answer = ask("/playground/api/inputs/img_f/0", "ann")

    assert not entry["is_there"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "input_gone")


def test_input_that_is_deleted_between_the_check_and_the_answer_is_gone(ask, inputs, monkeypatch):
    check = JobViews._input_path

    def check_and_delete(views, name):
        path = check(views, name)
        path.unlink()
        return path

    monkeypatch.setattr(JobViews, "_input_path", check_and_delete)
    answer = ask("/playground/api/inputs/img_e/0", "ann")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "input_gone")


def test_nothing_but_images_inside_the_input_folder_is_handed_out(ask):
    entries = ask("/playground/api/inputs/img_g", "ann").json()["inputs"]

    assert [entry["is_there"] for entry in entries] == [False] * 6
    for entry in entries:
        answer = ask(f"/playground/api/inputs/img_g/{entry['index']}", "ann")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "input_gone")


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
