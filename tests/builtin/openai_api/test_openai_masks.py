"""Masks of edits: what the API makes of them, and a picture that a trained model paints inside of one."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from api_server import live_api, png
from http_process import DEADLINE_S
from openai.types import ImagesResponse
from PIL import Image

from sglang_core import CallDescription
from sglang_core.testing import no_op_plugin


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with live_api(tmp_path_factory.mktemp("masks"), takes_mask=True) as live:
        yield live


def mask_of(width, height, *, mode="RGBA"):
    """Return a mask whose right half is transparent, or white on black."""
    mask = Image.new(mode, (width, height), (0, 0, 0, 255) if mode == "RGBA" else 0)
    mask.paste((0, 0, 0, 0) if mode == "RGBA" else 255, (width // 2, 0, width, height))
    buffer = io.BytesIO()
    mask.save(buffer, "png")
    return buffer.getvalue()


def data_url(content):
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_mask_of_the_client_reaches_the_job(api, client):
    mask = mask_of(16, 8)

    raw = client.images.with_raw_response.edit(
        image=[png(16, 8)], mask=("m.png", mask), prompt="a", extra_body={"strength": 0.9}
    )

    ImagesResponse.model_validate(json.loads(raw.content), strict=True)
    job = api.jobs.jobs[raw.parse().id]
    assert job.input_files == (f"{job.id}_0.png", f"{job.id}_1.png")
    assert [Path(path).name for path in job.settings["image_path"]] == [f"{job.id}_0.png"]
    assert Path(job.settings["mask_path"]).read_bytes() == mask
    assert job.settings["strength"] == 0.9


@pytest.mark.parametrize("as_object", [False, True])
def test_mask_is_taken_as_a_url_in_json(api, http, as_object):
    url = data_url(mask_of(16, 8))
    body = {"prompt": "a", "image": data_url(png(16, 8)), "mask": {"image_url": url} if as_object else url}

    answer = http.post("/v1/images/edits", json=body)

    assert answer.status_code == 200, answer.text
    assert Path(api.jobs.jobs[answer.json()["id"]].settings["mask_path"]).is_file()


def test_record_tells_neither_the_mask_s_path_nor_the_image_s(http):
    files = {"image": png(16, 8), "mask": mask_of(16, 8)}
    job_id = http.post("/v1/images/edits", data={"prompt": "a", "seed": "4"}, files=files).json()["id"]

    record = http.get(f"/v1/images/{job_id}").json()

    assert record["settings"] == {"prompt": "a", "seed": [4], "output_format": "png"}


REFUSED = {
    "size": ({"image": png(16, 8), "mask": mask_of(8, 8)}, {}, "the mask has 8 x 8 pixels, its image 16 x 8", "mask"),
    "no picture": ({"image": png(), "mask": b"text"}, {}, "the mask is not an image", "mask"),
    "no image": ({"mask": mask_of(8, 8)}, {}, "there is no image to start from", "image"),
    "two masks": ({"image": png()}, {"mask": ["a", "b"]}, "'mask' takes one value, not a list", "mask"),
    "path": ({"image": png()}, {"mask": "/etc/passwd"}, "a client does not name files of the server", "mask"),
    "setting": ({"image": png()}, {"mask_path": "/etc/passwd"}, "'mask_path' ('/etc/passwd') is not supp", "mask_path"),
    "private": ({"image": png()}, {"mask": "http://127.0.0.1:1/m.png"}, "which is not a public address", "mask"),
    "strength": ({"image": png()}, {"strength": "1.5"}, "'strength' is 1.5, it takes at most 1", "strength"),
}


@pytest.mark.parametrize(("files", "fields", "message", "param"), REFUSED.values(), ids=REFUSED)
def test_mask_that_can_not_be_used_is_refused_and_leaves_nothing(http, api, files, fields, message, param):
    before = set(api.server.input_folder.glob("*"))

    answer = http.post("/v1/images/edits", data={"prompt": "a", **fields}, files=files)

    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param
    assert str(api.server.input_folder) not in answer.text
    assert set(api.server.input_folder.glob("*")) == before


def test_idempotency_key_stands_for_the_mask_too(http):
    def send(mask):
        files = {"image": png(16, 8), "mask": mask}
        return http.post(
            "/v1/images/edits", data={"prompt": "a"}, files=files, headers={"Idempotency-Key": "of-a-mask"}
        )

    first = send(mask_of(16, 8))

    assert send(mask_of(16, 8)).json()["id"] == first.json()["id"]
    assert send(mask_of(16, 8, mode="L")).status_code == 409


def test_model_says_that_it_takes_masks(http, tmp_path):
    card = http.get("/v1/models").json()["data"][0]

    assert (card["takes_images"], card["takes_mask"]) == (True, True)
    assert "strength" in card["parameters"]
    with live_api(tmp_path, takes_image=True) as other:
        card = httpx.get(f"{other.url}/v1/models").json()["data"][0]
    assert (card["takes_images"], card["takes_mask"]) == (True, False)


@pytest.mark.parametrize("takes_image", [False, True])
def test_backend_that_could_is_named(tmp_path, takes_image):
    inputs = {"prompt": None, "image": None, "mask_image": None}
    able = no_op_plugin(name="able", order=9, call=CallDescription(kind="image", parameters=inputs))

    with live_api(tmp_path, takes_image=takes_image) as live:
        live.server.manager.register(able, "able")
        answer = httpx.post(
            f"{live.url}/v1/images/edits", data={"prompt": "a"}, files={"image": png(), "mask": png()}, timeout=60
        )

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "--backend able" in error["message"]
    assert error["param"] == ("mask" if takes_image else "image")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Return the URL of a real server with the embedded image model."""
    folder = tmp_path_factory.mktemp("embedded")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "HF_"))}
    words = ["serve", "--device", "cpu", "--port", "0", "--output-path", folder / "out"]
    with (folder / "stderr").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "sglang_core", *words],
            cwd=folder, env={**kept, "HOME": str(folder), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=err,
            text=True,
        )  # fmt: skip
        try:
            line = process.stdout.readline()
            assert "listening on" in line, (folder / "stderr").read_text()
            url = line.split()[-1]
            deadline = time.monotonic() + 4 * DEADLINE_S  # a model and its libraries, on a machine that may be busy
            while httpx.get(f"{url}/health", timeout=DEADLINE_S).status_code != 200:
                assert time.monotonic() < deadline, (folder / "stderr").read_text()
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def pixels_of(answer):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).convert("RGB")).astype(int)


def test_trained_model_paints_inside_of_the_mask_and_leaves_the_rest(embedded):
    prompt = "a {} on a white background"
    settings = {"extra_body": {"seed": 7, "num_inference_steps": 12}, "response_format": "b64_json"}
    with openai.OpenAI(base_url=f"{embedded}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S * 2) as client:
        circle = client.images.generate(prompt=prompt.format("red circle"), **settings)
        source = base64.b64decode(circle.data[0].b64_json)
        before = pixels_of(circle)
        height, width, _ = before.shape
        edit = {"image": ("a.png", source), "mask": ("m.png", mask_of(width, height)), **settings}
        after = pixels_of(client.images.edit(prompt=prompt.format("blue square"), **edit))

    assert after.shape == before.shape
    kept, painted = after[:, : width // 2 - 8], after[:, width // 2 + 8 :]
    assert np.abs(kept - before[:, : width // 2 - 8]).mean() < 6  # through the autoencoder and back
    assert _share(painted, blue=True) > 0.01
    assert _share(painted, blue=False) < 0.002
    assert _share(kept, blue=True) < 0.002
    assert _share(kept, blue=False) > 0.01


def _share(pixels, *, blue):
    """Return how much of a picture is blue, or red."""
    strong, weak = (2, 0) if blue else (0, 2)
    return float(((pixels[..., strong] > 150) & (pixels[..., weak] < 110) & (pixels[..., 1] < 130)).mean())
