"""Files of jobs that may be deleted at any moment."""

import asyncio
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sglang_core import ApiError, Job, JobOutput
from sglang_core.server.errors import answer_api_error
from sglang_plugins_builtin.openai_api import still_cache
from sglang_plugins_builtin.openai_api.still_cache import StillCache
from sglang_plugins_builtin.openai_api.stored_files import StoredFile

CONTENT = bytes(range(200))


def serve(path, otherwise):
    """Return a client of a route that answers with a file."""

    async def answer(request):
        return StoredFile(path, "video/mp4", "clip.mp4", otherwise=otherwise)

    app = Starlette(routes=[Route("/", answer)], exception_handlers={ApiError: answer_api_error})
    return TestClient(app)


async def gone():
    raise ApiError(404, "the file is gone", code="output_gone")


async def elsewhere():
    return PlainTextResponse("from the storage")


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    return path


def test_file_is_sent_whole_and_in_ranges(clip):
    with serve(clip, gone) as client:
        whole = client.get("/")
        part = client.get("/", headers={"Range": "bytes=10-19", "If-Range": whole.headers["etag"]})
        parts = client.get("/", headers={"Range": "bytes=0-1,10-11"})
        head = client.head("/")

    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, CONTENT, "video/mp4")
    assert whole.headers["content-disposition"] == 'inline; filename="clip.mp4"'
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, CONTENT[10:20], "bytes 10-19/200")
    assert (parts.status_code, CONTENT[10:12] in parts.content) == (206, True)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "200")


def test_range_that_can_not_be_served_is_refused_in_the_shape_of_all_errors(clip):
    with serve(clip, gone) as client:
        outside = client.get("/", headers={"Range": "bytes=200-"})
        words = client.get("/", headers={"Range": "lines=1-2"})

    assert (outside.status_code, outside.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert outside.headers["content-range"] == "bytes */200"
    assert (words.status_code, words.json()["error"]["param"]) == (400, "Range")


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}], ids=["whole", "range"])
@pytest.mark.parametrize("moment", ["before", "between look and opening"])
def test_file_that_is_gone_is_answered_with_what_is_there_instead(clip, moment, headers, monkeypatch):
    if moment == "before":
        clip.unlink()
    else:
        look = StoredFile.set_stat_headers

        def look_and_delete(answer, found):
            look(answer, found)
            clip.unlink(missing_ok=True)

        monkeypatch.setattr(StoredFile, "set_stat_headers", look_and_delete)

    with serve(clip, gone) as client:
        refused = client.get("/", headers=headers)
    with serve(clip, elsewhere) as client:
        moved = client.get("/", headers=headers)

    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "output_gone")
    assert (moved.status_code, moved.text) == (200, "from the storage")


def test_folder_is_no_file(tmp_path):
    with serve(tmp_path, gone) as client:
        assert client.get("/").status_code == 404


def test_clip_that_is_deleted_while_its_picture_is_made_is_gone(clip, monkeypatch):
    async def run(still, source, picture):
        source.unlink()
        raise ApiError(500, "the thumbnail of this clip can not be made: no such file", code="not_made")

    monkeypatch.setattr(still_cache, "_run", run)
    output = JobOutput(
        index=0, kind="video", media_type="video/mp4", width=8, height=8, num_frames=1, num_bytes=6, seed=1,
        file=clip.name, object_key=None, receipt={},
    )  # fmt: skip
    job = Job(id="video_a", kind="video", operation="videos.create", created_at=1.0, settings={}, outputs=(output,))
    jobs = SimpleNamespace(content_path=lambda job, index: clip)
    cache = StillCache(SimpleNamespace(output_folder=clip.parent, jobs=jobs, storage=None))

    with pytest.raises(ApiError) as refused:
        asyncio.run(cache.get(job, output, "thumbnail"))

    assert (refused.value.status, refused.value.code) == (404, "output_gone")
