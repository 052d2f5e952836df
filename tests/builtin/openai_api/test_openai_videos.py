import asyncio
import base64
import io
import json
import warnings

import openai
import pytest
from api_server import live_api, png, wait_until
from openai.types import Video, VideoDeleteResponse
from PIL import Image

from sglang_core import JobError

warnings.filterwarnings("ignore", message="The Sora API", category=DeprecationWarning)
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
#: The only sizes that OpenAI's type knows; other sizes are told as they are.
SIZE = "720x1280"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with live_api(tmp_path_factory.mktemp("videos"), "video", takes_image=True) as live:
        yield live


@pytest.fixture(scope="module")
def finished(http):
    """Return the record of a clip of 17 frames."""
    return finish(http, {"prompt": "a red ball", "num_frames": 17, "seed": 3})


def finish(http, body):
    record = http.post("/v1/videos", json=body).json()
    wait_until(lambda: http.get(f"/v1/videos/{record['id']}").json()["status"] in {"completed", "failed"})
    return http.get(f"/v1/videos/{record['id']}").json()


def test_video_is_created_polled_and_downloaded_by_the_client(client, api):
    created = client.videos.with_raw_response.create(prompt="a red ball", model="sora-2", size=SIZE, seconds="4")
    video = client.videos.poll(created.parse().id)

    record = Video.model_validate(json.loads(created.content), strict=True)
    assert record.status in {"queued", "in_progress"}
    assert (record.seconds, record.size, record.model, record.progress < 100) == ("4", SIZE, "sora-2", True)
    assert int(created.headers["openai-poll-after-ms"]) >= 250
    assert video.status == "completed"
    assert video.progress == 100
    assert api.jobs.jobs[video.id].settings["num_frames"] == 33  # the nearest to 4 seconds of 8 frames that it can make
    Video.model_validate(client.videos.retrieve(video.id).model_dump(mode="json"), strict=True)


def test_create_and_poll_waits_for_the_video(client):
    video = client.videos.create_and_poll(prompt="a", size="1280x720", poll_interval_ms=20)

    assert video.status == "completed"
    assert video.num_frames == 5


def test_asynchronous_client_does_the_same(api):
    async def run():
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
            video = await client.videos.create_and_poll(prompt="a", poll_interval_ms=20)
            content = await client.videos.download_content(video.id)
            listed = [item.id async for item in client.videos.list(limit=1)]
            deleted = await client.videos.delete(video.id)
            return video, content.content, listed, deleted

    video, content, listed, deleted = asyncio.run(run())

    assert content[4:8] == b"ftyp"
    assert video.id in listed
    assert deleted.deleted


def test_variants_of_the_content(client, finished, api):
    video = client.videos.download_content(finished["id"])
    thumbnail = client.videos.download_content(finished["id"], variant="thumbnail")
    sheet = client.videos.download_content(finished["id"], variant="spritesheet")

    assert video.response.headers["content-type"] == "video/mp4"
    assert video.content[4:8] == b"ftyp"
    assert thumbnail.response.headers["content-type"] == "image/webp"
    middle = Image.open(io.BytesIO(thumbnail.content))
    assert middle.size == (64, 48)
    assert abs(middle.getpixel((30, 20))[0] - 8 * 40 % 256) < 12  # frame 8 of 17
    assert sheet.response.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(sheet.content)).size == (4 * 64, 4 * 48)
    assert len(list(api.server.output_folder.glob(f"{finished['id']}*"))) == 3


def test_content_is_served_in_ranges(http, finished):
    whole = http.get(f"/v1/videos/{finished['id']}/content")
    part = http.get(f"/v1/videos/{finished['id']}/content", headers={"Range": "bytes=4-7"})
    end = http.get(f"/v1/videos/{finished['id']}/content", headers={"Range": "bytes=-10"})
    outside = http.get(f"/v1/videos/{finished['id']}/content", headers={"Range": "bytes=9999999-"})

    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["content-range"] == f"bytes 4-7/{len(whole.content)}"
    assert end.content == whole.content[-10:]
    assert outside.status_code == 416
    assert whole.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("variant=poster", 400, "'variant' is 'poster', it takes one of video, thumbnail, spritesheet"),
        ("index=1", 404, "has no output '1', it has 1 output(s), counted from 0"),
        ("index=-1", 404, "has no output '-1'"),
        ("variant=thumbnail&index=x", 404, "has no output 'x'"),
    ],
)
def test_wrong_content_is_refused(http, finished, query, status, message):
    answer = http.get(f"/v1/videos/{finished['id']}/content?{query}")

    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_content_of_a_running_video_is_not_there_yet(http, api):
    api.jobs.gate.clear()
    try:
        job_id = http.post("/v1/videos", json={"prompt": "a"}).json()["id"]
        answer = http.get(f"/v1/videos/{job_id}/content")
    finally:
        api.jobs.gate.set()

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_ready"


def test_running_video_is_cancelled_and_the_client_s_poll_ends(http, client, api):
    api.jobs.gate.clear()
    try:
        job_id = http.post("/v1/videos", json={"prompt": "a"}).json()["id"]
        wait_until(lambda: api.jobs.jobs[job_id].status == "in_progress")
        cancelled = http.post(f"/v1/videos/{job_id}/cancel").json()
        assert (cancelled["status"], cancelled["state"]) == ("in_progress", "cancelling")
        video = client.videos.poll(job_id, poll_interval_ms=20)
    finally:
        api.jobs.gate.set()

    assert (video.status, video.state) == ("failed", "cancelled")
    assert video.error.code == "cancelled"
    assert http.post(f"/v1/videos/{job_id}/cancel").json()["state"] == "cancelled"
    content = http.get(f"/v1/videos/{job_id}/content")
    assert content.status_code == 404
    assert "the job was cancelled" in content.json()["error"]["message"]


def test_finished_video_can_not_be_cancelled(http, finished):
    answer = http.post(f"/v1/videos/{finished['id']}/cancel")

    assert answer.status_code == 400
    assert "is completed already and can not be cancelled" in answer.json()["error"]["message"]


def test_failed_video_tells_why(http, api, client):
    api.jobs.failure = JobError(code="out_of_memory", message="it does not fit", remedy="ask for fewer frames")
    try:
        record = finish(http, {"prompt": "a", "size": SIZE})
    finally:
        api.jobs.failure = None

    video = Video.model_validate(record, strict=True)
    assert video.status == "failed"
    assert (video.error.code, video.error.message) == ("out_of_memory", "it does not fit; try: ask for fewer frames")
    assert video.progress < 100


def test_videos_are_listed_in_pages_and_deleted(client, http):
    made = [finish(http, {"prompt": "a"})["id"] for _ in range(3)]

    page = client.videos.list(limit=2)
    for item in page.data:
        Video.model_validate(item.model_dump(mode="json") | {"size": SIZE}, strict=True)
    assert [item.id for item in page.data] == [made[2], made[1]]
    assert page.get_next_page().data[0].id == made[0]
    assert next(iter(client.videos.list(order="asc", limit=1))).id != made[2]
    for job_id in made:
        raw = client.videos.with_raw_response.delete(job_id)
        VideoDeleteResponse.model_validate(json.loads(raw.content), strict=True)
    with pytest.raises(openai.NotFoundError) as caught:
        client.videos.retrieve(made[0])
    assert caught.value.code == "video_not_found"


def test_running_video_is_cancelled_before_it_is_deleted(http, api):
    api.jobs.gate.clear()
    try:
        job_id = http.post("/v1/videos", json={"prompt": "a"}).json()["id"]
        answer = http.delete(f"/v1/videos/{job_id}")
    finally:
        api.jobs.gate.set()

    assert answer.json() == {"id": job_id, "object": "video.deleted", "deleted": True}
    assert job_id not in api.jobs.jobs


def test_remix_keeps_everything_but_the_prompt(client, http, api, finished):
    remixed = client.videos.remix(finished["id"], prompt="a blue ball")
    wait_until(lambda: api.jobs.jobs[remixed.id].is_over)

    settings, before = api.jobs.jobs[remixed.id].settings, api.jobs.jobs[finished["id"]].settings
    assert remixed.remixed_from_video_id == finished["id"]
    assert settings["prompt"] == "a blue ball"
    assert (settings["seed"], settings["num_frames"]) == (before["seed"], before["num_frames"])


def test_remix_takes_its_images_along(http, api):
    data_url = "data:image/png;base64," + base64.b64encode(png()).decode()
    source = finish(http, {"prompt": "a", "input_reference": data_url})
    remixed = http.post(f"/v1/videos/{source['id']}/remix", json={"prompt": "b"}).json()
    wait_until(lambda: api.jobs.jobs[remixed["id"]].is_over)

    names = api.jobs.jobs[remixed["id"]].input_files
    assert names == (f"{remixed['id']}_0.png",)
    assert (api.server.input_folder / names[0]).read_bytes() == png()


def test_remix_of_a_failed_video_is_refused(http, api):
    api.jobs.failure = JobError(code="failed", message="no")
    try:
        record = finish(http, {"prompt": "a"})
    finally:
        api.jobs.failure = None
    answer = http.post(f"/v1/videos/{record['id']}/remix", json={"prompt": "b"})

    assert answer.status_code == 400
    assert "only a completed video can be remixed" in answer.json()["error"]["message"]


def references():
    data_url = "data:image/png;base64," + base64.b64encode(png()).decode()
    return {
        "file": {"input_reference": ("../a.png", png(), "image/png")},
        "object": {"extra_body": {"input_reference": {"image_url": data_url}}},
        "url": {"extra_body": {"reference_url": data_url}},
    }


@pytest.mark.parametrize("reference", references().values(), ids=references())
def test_video_starts_from_an_image(client, api, reference):
    video = client.videos.create(prompt="a", **reference)

    job = api.jobs.jobs[video.id]
    assert job.input_files == (f"{video.id}_0.png",)
    assert (api.server.input_folder / job.input_files[0]).read_bytes() == png()


def test_extensions_of_the_client_s_form_are_typed(client, api):
    extensions = {"num_inference_steps": 3, "guidance_scale": 1.5, "fps": 4, "diffusers_kwargs": {"eta": 0.5}}
    video = client.videos.create(prompt="a", seconds="4", extra_body={**extensions, "seed": [1, 2], "n": 2})

    settings = api.jobs.jobs[video.id].settings
    assert {name: settings[name] for name in extensions} == extensions
    assert settings["num_frames"] == 17
    assert settings["seed"] == [1, 2]
    assert video.seconds == "4"


BAD = {
    "two lengths": ({"seconds": 2, "num_frames": 9}, "'seconds' and 'num_frames' both say", "seconds"),
    "length": ({"seconds": "long"}, "'seconds' takes a number, not 'long'", "seconds"),
    "no length": ({"seconds": 0}, "'seconds' is 0, it takes more than 0", "seconds"),
    "frames off the grid": ({"num_frames": 6}, "try: use num_frames 5", "num_frames"),
    "too many frames": ({"num_frames": 2001}, "num_frames is 2,001, this server takes at most 1,024", "num_frames"),
    "server path": (
        {"input_reference": "/etc/passwd"}, "a client does not name files of the server", "input_reference",
    ),
    "file id": (
        {"input_reference": {"file_id": "x"}}, "this server keeps no files: give image_url", "input_reference.file_id",
    ),
    "inside": ({"reference_url": "http://[::1]/a.png"}, "which is not a public address", "reference_url"),
    "two images": ({"input_reference": "data:,a", "reference_url": "data:,b"}, "give one of", "reference_url"),
    "video path": ({"video_path": "/a.mp4"}, "a client does not name files of the server", "video_path"),
    "video": ({"video_url": "http://a.b/c.mp4"}, "the model does not start from a video", "video_url"),
    "preset": ({"x264_preset": "quick"}, "takes one of ultrafast", "x264_preset"),
    "interpolation": (
        {"enable_frame_interpolation": True}, "no such step after the denoising", "enable_frame_interpolation",
    ),
    "image field": ({"partial_images": 1}, "unknown field 'partial_images'", "partial_images"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message", "param"), BAD.values(), ids=BAD)
def test_wrong_field_is_refused_by_name(http, api, fields, message, param):
    before = len(api.jobs.jobs)

    answer = http.post("/v1/videos", json={"prompt": "a", **fields})

    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param
    assert len(api.jobs.jobs) == before


def test_harmless_values_of_other_fields_are_taken(http):
    fields = {"enable_teacache": False, "enhance_prompt": False, "quality": "standard", "enable_upscaling": None}

    assert http.post("/v1/videos", json={"prompt": "a", **fields}).status_code == 200


def test_events_tell_how_a_video_goes_on_until_it_is_over(http, api):
    api.jobs.gate.clear()
    record = http.post("/v1/videos", json={"prompt": "a", "previews": 4}).json()
    with http.stream("GET", f"/v1/videos/{record['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        api.jobs.gate.set()
        lines = [line for line in answer.iter_lines() if line]

    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [event["type"] for event in events] == names
    steps = [event["step"] for event in events if event["type"] == "progress" and event["step"]]
    assert steps == sorted(steps)
    assert [event["progress"] for event in events] == sorted(event["progress"] for event in events)
    assert any(
        base64.b64decode(event["preview"]["b64_json"])[:4] == b"\x89PNG" for event in events if "preview" in event
    )
    assert names[-1] == "finished"
    assert events[-1]["record"]["status"] == "completed"


def test_events_of_a_finished_video_end_at_once(http, finished):
    answer = http.get(f"/v1/videos/{finished['id']}/events")

    assert answer.text.count("event: ") == 1
    assert '"type":"finished"' in answer.text


def test_image_routes_of_a_video_server_say_where_to_go(client):
    with pytest.raises(openai.BadRequestError, match=r"makes clips: use POST /v1/videos"):
        client.images.generate(prompt="a")


def test_picture_of_a_damaged_clip_is_an_error_and_leaves_no_file(http, api):
    record = finish(http, {"prompt": "a"})
    (api.server.output_folder / f"{record['id']}.mp4").write_bytes(b"no clip")

    answer = http.get(f"/v1/videos/{record['id']}/content?variant=thumbnail")

    assert answer.status_code == 500
    assert "the thumbnail of this clip can not be made" in answer.json()["error"]["message"]
    assert len(list(api.server.output_folder.glob(f"{record['id']}*"))) == 1
