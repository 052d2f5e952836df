import base64
import contextlib
import io
import json
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from api_server import live_api, png, wait_until
from openai.types import ImagesResponse
from openai.types.image_edit_completed_event import ImageEditCompletedEvent
from openai.types.image_edit_partial_image_event import ImageEditPartialImageEvent
from openai.types.image_gen_completed_event import ImageGenCompletedEvent
from openai.types.image_gen_partial_image_event import ImageGenPartialImageEvent
from PIL import Image

from sglang_core import JobError


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with live_api(tmp_path_factory.mktemp("images"), takes_image=True) as live:
        yield live


def opened(content):
    return Image.open(io.BytesIO(content))


def test_image_comes_as_an_absolute_url_that_serves_the_file(client, http):
    raw = client.images.with_raw_response.generate(prompt="a red circle", size="96x64")

    answer = ImagesResponse.model_validate(json.loads(raw.content), strict=True)
    assert answer.size == "96x64"
    assert answer.output_format == "png"
    assert answer.data[0].b64_json is None
    file = httpx.get(answer.data[0].url)
    assert file.headers["content-type"] == "image/png"
    assert opened(file.content).size == (96, 64)


def test_size_auto_and_none_are_the_model_s_own(client):
    assert client.images.generate(prompt="a", size="auto").size == "64x48"
    assert client.images.generate(prompt="a").size == "64x48"


@pytest.mark.parametrize(("asked", "told", "kind"), [("jpeg", "jpeg", "JPEG"), ("webp", "webp", "WEBP")])
def test_images_come_in_the_answer_in_the_format_that_is_asked_for(client, asked, told, kind):
    answer = client.images.generate(prompt="a", n=2, response_format="b64_json", output_format=asked)

    assert answer.output_format == told
    assert [image.url for image in answer.data] == [None, None]
    assert [opened(base64.b64decode(image.b64_json)).format for image in answer.data] == [kind, kind]


def test_variants_of_one_request_have_their_own_seeds_and_urls(client, http):
    answer = client.images.generate(prompt="a", n=2, extra_body={"seed": 7})

    assert [image.seed for image in answer.data] == [7, 8]
    assert [image.url.rpartition("?")[2] for image in answer.data] == ["variant=0", "variant=1"]
    missing = http.get(answer.data[0].url.replace("variant=0", "variant=2"))
    assert missing.status_code == 404
    assert "it has 2 output(s), counted from 0" in missing.json()["error"]["message"]


def test_extension_fields_reach_the_settings_of_the_job(client, api):
    extensions = {"num_inference_steps": 3, "negative_prompt": "blue", "guidance_scale": 2, "seed": [5]}
    answer = client.images.generate(prompt="a", extra_body={**extensions, "diffusers_kwargs": {"eta": 0.5}})

    settings = api.jobs.jobs[answer.id].settings
    assert {name: settings[name] for name in extensions} == extensions
    assert settings["diffusers_kwargs"] == {"eta": 0.5}


@pytest.mark.parametrize("container", ["extra_body", "extra_args", "extra_params", "extra_json"])
def test_extensions_may_come_in_the_containers_of_other_clients(http, api, container):
    answer = http.post("/v1/images/generations", json={"prompt": "a", container: {"num_inference_steps": 2}})

    assert answer.status_code == 200
    assert api.jobs.jobs[answer.json()["id"]].settings["num_inference_steps"] == 2


def test_what_open_clients_always_send_is_taken(client):
    client.images.generate(
        prompt="a", model="gpt-image-1", style="vivid", user="me", moderation="auto", quality="auto", background="auto"
    )
    client.images.generate(prompt="a", quality="standard", moderation="low", background="opaque")


BAD = {
    "unknown": ({"guidance_scal": 2}, "unknown field 'guidance_scal': did you mean 'guidance_scale'?", "guidance_scal"),
    "unknown inside of a container": ({"extra_body": {"foo": 1}}, "unknown field 'foo'", "foo"),
    "given twice": ({"seed": 1, "extra_body": {"seed": 2}}, "'seed' is given twice, also in 'extra_body'", "seed"),
    "container of a list": ({"extra_args": [1]}, "'extra_args' takes a JSON object", "extra_args"),
    "text for a number": ({"n": "two"}, "'n' takes a whole number, not 'two'", "n"),
    "text of a number": ({"n": "2"}, "'n' takes a whole number, not '2'", "n"),
    "bool for a number": ({"n": True}, "'n' takes a whole number, not true", "n"),
    "fraction": ({"n": 1.5}, "'n' takes a whole number, not 1.5", "n"),
    "too many": ({"n": 11}, "'n' is 11, it takes at most 10", "n"),
    "too few": ({"n": 0}, "'n' is 0, it takes at least 1", "n"),
    "size": ({"size": "big"}, "'size' is 'big', it takes WIDTHxHEIGHT, for example 512x512, or auto", "size"),
    "off the grid": (
        {"size": "65x48"}, "multiples of 8 pixels, not width 65 and height 48; try: use width 64", "width",
    ),
    "two sizes": ({"size": "64x64", "width": 32}, "'size' is 64x64 and 'width' is 32: give one of the two", "width"),
    "negative seed": ({"seed": -1}, "'seed' is -1, it takes at least 0", "seed"),
    "huge seed": ({"seed": 2**63}, "'seed' is 9223372036854775808, it takes at most", "seed"),
    "choice": (
        {"response_format": "b64_jsn"}, "takes one of url, b64_json (did you mean 'b64_json'?)", "response_format",
    ),
    "gif": (
        {"output_format": "gif"}, "'output_format' is 'gif', it takes one of png, jpeg, jpg, webp", "output_format",
    ),
    "transparent": ({"background": "transparent"}, "'background' is 'transparent', it takes one of", "background"),
    "quality": ({"quality": "hd"}, "'quality' is 'hd', it takes one of auto, standard", "quality"),
    "style": ({"style": "natural"}, "'style' is 'natural', it takes one of vivid", "style"),
    "svg": ({"svg": {"model": "x"}}, "'svg' (an object) is not supported: the model makes pixels", "svg"),
    "path": (
        {"output_path": "/tmp"}, "'output_path' ('/tmp') is not supported: a client does not choose", "output_path",
    ),
    "dump": ({"perf_dump_path": "/tmp/x"}, "a client does not choose paths of the server", "perf_dump_path"),
    "video field": ({"num_frames": 9}, "'num_frames' (9) is not supported: images have one frame", "num_frames"),
    "argument of the pipeline": ({"diffusers_kwargs": {"eat": 1}}, "eat is no argument", "diffusers_kwargs"),
    "argument the model has not": ({"true_cfg_scale": 2}, "takes no true_cfg_scale", "true_cfg_scale"),
    "seeds": ({"seed": [1, 2], "n": 3}, "2 seeds for 1 prompt(s) of 3 output(s)", "seed"),
    "null prompt": ({"prompt": None}, "the field 'prompt' is missing", "prompt"),
    "empty prompt": ({"prompt": " "}, "the prompt is empty", "prompt"),
    "long prompt": ({"prompt": "a" * 10_001}, "'prompt' has 10,001 characters, it takes at most 10,000", "prompt"),
    "partial images alone": ({"partial_images": 1}, "'partial_images' needs 'stream': true", "partial_images"),
    "partial images": (
        {"stream": True, "partial_images": 4}, "'partial_images' is 4, it takes at most 3", "partial_images",
    ),
    "stream in the background": (
        {"stream": True, "run_in_background": True}, "exclude each other", "run_in_background",
    ),
    "huge number": ({"guidance_scale": 10**400}, "it takes at most 1,000", "guidance_scale"),
    "webhook": ({"webhook_url": "file:///etc"}, "it takes an http or https URL", "webhook_url"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message", "param"), BAD.values(), ids=BAD)
def test_wrong_field_is_refused_by_name(http, api, fields, message, param):
    before = len(api.jobs.jobs)

    answer = http.post("/v1/images/generations", json={"prompt": "a", **fields})

    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert len(api.jobs.jobs) == before


BODIES = {
    "nothing": (b"", 400, "the body is not JSON"),
    "half": (b'{"prompt": "a"', 400, "the body is not JSON"),
    "list": (b"[]", 400, "the body is not a JSON object"),
    "NaN": (b'{"prompt": "a", "guidance_scale": NaN}', 400, "NaN is no number of JSON"),
    "infinity": (b'{"prompt": "a", "guidance_scale": 1e999}', 400, "'guidance_scale' takes a number, not inf"),
    "twice": (b'{"prompt": "a", "prompt": "b"}', 400, "the field 'prompt' is there twice"),
    "deep": (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deeply"),
    "not UTF-8": (b'{"prompt": "\xff"}', 400, "the body is not JSON"),
    "half a pair": (b'{"prompt": "\\ud800"}', 400, "half a surrogate pair"),
    "long number": (b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", 400, "the body is not JSON"),
}


@pytest.mark.parametrize(("body", "status", "message"), BODIES.values(), ids=BODIES)
def test_body_that_is_no_json_object_is_refused(http, body, status, message):
    answer = http.post("/v1/images/generations", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_other_kinds_of_bodies_are_refused(http):
    answer = http.post("/v1/images/generations", data={"prompt": "a"})

    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


def test_model_that_is_not_served_is_404(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="a", model="dall-e-3")

    assert caught.value.code == "model_not_found"
    assert "'dall-e-3' is not served here, but 'tiny', 'gpt-image-1', 'sora-2': use one of" in str(caught.value)
    assert "--served-model-name" in str(caught.value)


def test_stream_sends_partial_images_and_the_image(client):
    stream = client.images.generate(prompt="a", stream=True, partial_images=2)
    events = [event.model_dump(mode="json") for event in stream]

    assert [event["type"] for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    partial = [ImageGenPartialImageEvent.model_validate(event, strict=True) for event in events[:2]]
    assert [event.partial_image_index for event in partial] == [0, 1]
    completed = ImageGenCompletedEvent.model_validate(events[2], strict=True)
    assert completed.size == "64x48"
    assert opened(base64.b64decode(completed.b64_json)).size == (64, 48)


def test_stream_of_edits_has_events_of_its_own(client):
    stream = client.images.edit(image=png(), prompt="a", stream=True, partial_images=1)
    events = [event.model_dump(mode="json") for event in stream]

    ImageEditPartialImageEvent.model_validate(events[0], strict=True)
    ImageEditCompletedEvent.model_validate(events[1], strict=True)


def test_stream_of_several_images_completes_each(client):
    events = list(client.images.generate(prompt="a", stream=True, n=2))

    assert [(event.type, event.index) for event in events] == [
        ("image_generation.completed", 0),
        ("image_generation.completed", 1),
    ]


@contextlib.contextmanager
def failing(api, **error):
    api.jobs.failure = JobError(**error)
    try:
        yield
    finally:
        api.jobs.failure = None


def test_failure_tells_its_reason_and_is_not_repeated_by_the_client(api):
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=2) as client:
        before = len(api.jobs.jobs)
        error = {"code": "failed", "message": "the VAE makes NaN", "remedy": "use vae_precision fp32"}
        with failing(api, **error), pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="a")

    assert caught.value.code == "failed"
    assert "the VAE makes NaN; try: use vae_precision fp32" in str(caught.value)
    assert len(api.jobs.jobs) == before + 1


def test_failure_in_a_stream_is_an_error_of_the_client(api, client):
    with failing(api, code="out_of_memory", message="it does not fit"), pytest.raises(openai.APIError, match="not fit"):
        list(client.images.generate(prompt="a", stream=True))


def test_full_queue_is_429_with_retry_after(api, http):
    api.jobs.is_full = True
    try:
        answer = http.post("/v1/images/edits", data={"prompt": "a"}, files={"image": png()})
    finally:
        api.jobs.is_full = False

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    assert not [path for path in api.server.input_folder.glob("*") if path.stem.rpartition("_")[0] not in api.jobs.jobs]


@contextlib.contextmanager
def held(api):
    """Hold the jobs in their second step while the body runs."""
    api.jobs.gate.clear()
    try:
        yield
    finally:
        api.jobs.gate.set()


def hang_up_while_it_runs(api, body, **headers):
    """Send a request and close the connection while its job runs; return the job's id."""
    before = set(api.jobs.jobs)
    with contextlib.closing(HTTPConnection(urlsplit(api.url).netloc, timeout=60)) as connection:
        headers["Content-Type"] = "application/json"
        connection.request("POST", "/v1/images/generations", json.dumps(body), headers)
        wait_until(lambda: any(job.status == "in_progress" for job in api.jobs.jobs.values() if job.id not in before))
    return (set(api.jobs.jobs) - before).pop()


@pytest.mark.parametrize("is_stream", [False, True])
def test_job_is_cancelled_when_its_client_hangs_up(api, is_stream):
    with held(api):
        job_id = hang_up_while_it_runs(api, {"prompt": "a", "stream": is_stream})
        wait_until(lambda: api.jobs.jobs[job_id].is_over)

    assert api.jobs.jobs[job_id].status == "cancelled"


def test_job_with_an_idempotency_key_outlives_its_client(api, http):
    key = {"Idempotency-Key": "again"}
    with held(api):
        job_id = hang_up_while_it_runs(api, {"prompt": "a"}, **key)
    wait_until(lambda: api.jobs.jobs[job_id].is_over)

    again = http.post("/v1/images/generations", json={"prompt": "a"}, headers=key)

    assert again.json()["id"] == job_id
    assert api.jobs.jobs[job_id].status == "completed"


def test_idempotency_key_of_another_request_is_refused(http):
    first = http.post("/v1/images/generations", json={"prompt": "a"}, headers={"Idempotency-Key": "one"})
    second = http.post("/v1/images/generations", json={"prompt": "b"}, headers={"Idempotency-Key": "one"})

    assert first.status_code == 200
    assert second.status_code == 409
    assert second.json()["error"]["code"] == "idempotency_key_reused"
    bad = http.post("/v1/images/generations", json={"prompt": "b"}, headers={"Idempotency-Key": "k" * 201})
    assert bad.status_code == 400


def test_request_in_the_background_is_a_job_that_can_be_followed(api, http):
    api.jobs.gate.clear()
    started = http.post("/v1/images/generations", json={"prompt": "a", "run_in_background": True, "previews": 2})

    assert started.status_code == 202
    record = started.json()
    assert record["object"] == "image"
    assert record["state"] == "queued"
    assert started.headers["location"].endswith(f"/v1/images/{record['id']}")
    with http.stream("GET", f"/v1/images/{record['id']}/events") as answer:
        api.jobs.gate.set()
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1]["type"] == "finished"
    assert events[-1]["record"]["outputs"][0]["width"] == 64
    assert any("preview" in event for event in events)
    assert http.get(f"/v1/images/{record['id']}").json()["status"] == "completed"


def test_record_tells_the_settings_without_the_server_s_paths(http):
    job_id = http.post("/v1/images/edits", data={"prompt": "a", "seed": "4", "n": "2"}, files={"image": png()}).json()[
        "id"
    ]

    record = http.get(f"/v1/images/{job_id}").json()

    assert record["settings"] == {"prompt": "a", "seed": [4], "n": 2, "output_format": "png"}
    assert http.post("/v1/images/generations", json=record["settings"]).status_code == 200


def test_edit_takes_files_and_urls_and_answers_with_the_image(client, api):
    data_url = "data:image/png;base64," + base64.b64encode(png(24, 24)).decode()
    raw = client.images.with_raw_response.edit(
        image=[png(8, 8), ("../../evil.sh", png(16, 16))], prompt="a", n=1, size="96x64", extra_body={"url": data_url}
    )

    answer = ImagesResponse.model_validate(json.loads(raw.content), strict=True)
    assert opened(base64.b64decode(answer.data[0].b64_json)).size == (96, 64)
    job = api.jobs.jobs[raw.parse().id]
    assert job.input_files == tuple(f"{job.id}_{index}.png" for index in range(3))
    sizes = [opened(Path(path).read_bytes()).size for path in job.settings["image_path"]]
    assert sizes == [(8, 8), (16, 16), (24, 24)]


def test_edit_takes_json_with_urls(http):
    data_url = "data:image/png;base64," + base64.b64encode(png()).decode()

    for image in (data_url, [{"image_url": data_url}]):
        answer = http.post("/v1/images/edits", json={"prompt": "a", "image": image, "response_format": "url"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"][0]["url"].startswith("http://127.0.0.1:")


BAD_EDITS = {
    "no image": ({}, {}, "there is no image to start from", "image"),
    "mask": ({"image": png(), "mask": png()}, {}, "mask does not apply: this model has no inpainting pipeline", "mask"),
    "strength": ({"image": png()}, {"strength": "0.5"}, "strength does not apply", "strength"),
    "no picture": ({"image": b"#!/bin/sh"}, {}, "image 1 is not an image", "image"),
    "path": ({}, {"url": "/etc/passwd"}, "a client does not name files of the server", "url"),
    "file URL": ({}, {"url": "file:///etc/passwd"}, "a client does not name files of the server", "url"),
    "inside": ({}, {"url": "http://127.0.0.1:1/a.png"}, "leads to 127.0.0.1, which is not a public address", "url"),
    "metadata": ({}, {"url": "http://169.254.169.254/"}, "which is not a public address", "url"),
    "fidelity": ({"image": png()}, {"input_fidelity": "high"}, "'input_fidelity' is 'high'", "input_fidelity"),
    "no number": ({"image": png()}, {"n": "x"}, "'n' takes a whole number, not 'x'", "n"),
    "no object": (
        {"image": png()}, {"diffusers_kwargs": "{"}, "'diffusers_kwargs' is not a JSON object", "diffusers_kwargs",
    ),
    "strange key": ({"image": png()}, {"a[b": "1"}, "the form has a field 'a[b', which can not be read", None),
}  # fmt: skip


@pytest.mark.parametrize(("files", "fields", "message", "param"), BAD_EDITS.values(), ids=BAD_EDITS)
def test_wrong_edit_is_refused_and_leaves_nothing(http, api, files, fields, message, param):
    before = set(api.server.input_folder.glob("*"))

    answer = http.post("/v1/images/edits", data={"prompt": "a", **fields}, files=files or {"nothing": (None, "")})

    if files == {} and "unknown field 'nothing'" in answer.text:
        answer = http.post("/v1/images/edits", json={"prompt": "a", **fields})
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param
    assert set(api.server.input_folder.glob("*")) == before


def test_picture_that_unpacks_to_gigabytes_is_refused_by_its_header(http):
    bomb = bytearray(png())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2

    answer = http.post("/v1/images/edits", data={"prompt": "a"}, files={"image": bytes(bomb)})

    assert answer.status_code == 400
    assert "image 1 has 60000 x 60000 pixels, at most 100,000,000 are read" in answer.json()["error"]["message"]


def test_form_spells_objects_and_lists_in_brackets(http, api):
    form = {"prompt": "a", "diffusers_kwargs[eta]": "0.25", "seed[]": ["3", "4"], "n": "2", "stream": "false"}
    answer = http.post("/v1/images/edits", data=form, files=[("image[]", png()), ("image[]", png())])

    assert answer.status_code == 200, answer.text
    job = api.jobs.jobs[answer.json()["id"]]
    assert job.settings["diffusers_kwargs"] == {"eta": 0.25}
    assert job.settings["seed"] == [3, 4]
    assert len(job.input_files) == 2


def test_list_of_images_is_paged(http):
    for _ in range(3):
        http.post("/v1/images/generations", json={"prompt": "a"})

    first = http.get("/v1/images", params={"limit": 2}).json()
    second = http.get("/v1/images", params={"limit": 2, "after": first["last_id"]}).json()

    assert first["has_more"]
    assert len(first["data"]) == 2
    assert first["data"][0]["created_at"] >= second["data"][0]["created_at"]
    assert not {item["id"] for item in first["data"]} & {item["id"] for item in second["data"]}
    assert http.get("/v1/images", params={"after": "img_unknown"}).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "0"}, "'limit' is '0', it takes a whole number from 1 to 100"),
        ({"limit": "many"}, "'limit' is 'many'"),
        ({"order": "up"}, "'order' is 'up', it takes asc or desc"),
        ({"page": "2"}, "unknown parameter 'page': known are after, limit, order"),
    ],
)
def test_wrong_page_is_refused(http, query, message):
    answer = http.get("/v1/images", params=query)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_deleted_image_is_gone_with_its_file(http, api):
    job_id = http.post("/v1/images/generations", json={"prompt": "a"}).json()["id"]

    assert http.delete(f"/v1/images/{job_id}").json() == {"id": job_id, "object": "image.deleted", "deleted": True}
    for path in ("", "/content", "/events"):
        assert http.get(f"/v1/images/{job_id}{path}").json()["error"]["code"] == "image_not_found"
    assert not list(api.server.output_folder.glob(f"{job_id}*"))


@pytest.mark.parametrize("name", ["img_unknown", "..%2f..%2fetc%2fpasswd", "%00", "a" * 300])
def test_unknown_image_is_404(http, name):
    answer = http.get(f"/v1/images/{name}")

    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_video_routes_of_an_image_server_say_where_to_go(http):
    answer = http.post("/v1/videos", json={"prompt": "a"})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "the model of this server makes images: use POST /v1/images/generations"
    )


def test_model_that_needs_an_image_refuses_generations(tmp_path):
    with live_api(tmp_path, needs_image=True) as api:
        answer = httpx.post(f"{api.url}/v1/images/generations", json={"prompt": "a"})

    assert answer.status_code == 400
    assert "starts from an image: use POST /v1/images/edits" in answer.json()["error"]["message"]


def test_model_without_images_refuses_edits_and_keys_see_only_their_jobs(tmp_path):
    keys = tmp_path / "keys.yaml"
    scopes = {"ann": ["generate", "admin"], "bob": ["generate"], "cid": ["generate"]}
    secrets = {name: f"key-of-{name}-0123456789abcdef" for name in scopes}
    listed = [{"name": name, "key": secrets[name], "scopes": scopes[name]} for name in scopes]
    keys.write_text(json.dumps({"keys": listed}))
    keys.chmod(0o600)
    with live_api(tmp_path, api_key_file=keys) as api:
        ann, bob, cid = ({"Authorization": f"Bearer {secret}"} for secret in secrets.values())
        with httpx.Client(base_url=api.url) as http:
            refused = http.post("/v1/images/edits", data={"prompt": "a"}, files={"image": png()}, headers=bob)
            job_id = http.post("/v1/images/generations", json={"prompt": "a"}, headers=bob).json()["id"]
            seen = [http.get(f"/v1/images/{job_id}", headers=key).status_code for key in (ann, bob, cid)]
            body = {"lora_nickname": "x"}
            lora = [http.post("/v1/set_lora", json=body, headers=key).status_code for key in (ann, bob)]

    assert "the model of this server takes no image" in refused.json()["error"]["message"]
    assert seen == [200, 200, 404]
    assert lora == [400, 403]
