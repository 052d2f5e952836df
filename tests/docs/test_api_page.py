"""The examples of the page on the HTTP API, against a server on loopback."""

import json
import os
import subprocess
import sys

import pytest
from api_server import live_api
from page_blocks import ROOT, blocks

PAGE = ROOT / "docs" / "api.md"
EXAMPLES = [block for block in blocks("sh", "py") if block.path == PAGE and "server" in block.marks]


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    with (
        live_api(tmp_path_factory.mktemp("image")) as image,
        live_api(tmp_path_factory.mktemp("video"), "video") as video,
        live_api(tmp_path_factory.mktemp("edit"), takes_mask=True) as edit,
    ):
        yield {"image": image.url, "video": video.url, "edit": edit.url}


@pytest.mark.parametrize("block", [pytest.param(block, id=block.id) for block in EXAMPLES])
def test_example_runs(block, urls, tmp_path):
    url = next(url for name, url in urls.items() if name in block.marks)
    script = tmp_path / "example"
    script.write_text(block.text, encoding="utf-8")
    program = "bash" if block.language == "sh" else sys.executable

    done = subprocess.run(
        [program, script], cwd=tmp_path, env={**os.environ, "SERVER": url}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    if block.language == "sh":
        assert '"error":{' not in done.stdout
        answer = done.stdout if "stream" in block.text else json.loads(done.stdout)
        assert "image_generation.completed" in answer or {"id", "size"} <= set(answer)
    else:
        assert list(tmp_path.glob("*.png")) or {path.name for path in tmp_path.iterdir()} >= {"ball.mp4", "ball.webp"}


def test_every_language_has_an_example():
    assert len(EXAMPLES) == 6
    assert {"curl", "client.images", "client.videos"} <= {
        word for block in EXAMPLES for word in ("curl", "client.images", "client.videos") if word in block.text
    }
