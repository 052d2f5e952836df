"""OpenAI's npm package, installed for these tests; ``SGLANG_TEST_NODE_MODULES`` names a node_modules that has it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from api_server import live_api

SCRIPT = Path(__file__).with_name("openai_client.mjs")
#: Names the version and its checksum, so that npm asks for one file, without a look into the registry's catalogue.
LOCK = Path(__file__).with_name("npm")
#: npm waits five minutes for a connection that says nothing, unless told otherwise.
PATIENCE = (
    "--fetch-timeout=30000",
    "--fetch-retries=5",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000",
)
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--legacy-peer-deps")
LIMIT_S = 400
pytestmark = pytest.mark.timeout(LIMIT_S + 300)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Return the folder of the installed packages."""
    if given := os.environ.get("SGLANG_TEST_NODE_MODULES"):
        return given
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm") / "client"
    shutil.copytree(LOCK, folder)
    command = [npm, "ci", "--prefer-offline", *QUIET, *PATIENCE]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm does not come to an end within {LIMIT_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the client here: {done.stderr.strip().splitlines()[-1:]}")
    return str(folder / "node_modules")


def run_client(kind, folder, modules):
    with live_api(folder, kind) as api:
        command = ["node", SCRIPT, kind, api.url, modules]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_javascript_client_makes_images(tmp_path, modules):
    assert run_client("image", tmp_path, modules) == {
        "sizes": ["PNG", "PNG"],
        "events": ["image_generation.partial_image", "image_generation.completed"],
        "models": ["tiny", "gpt-image-1", "sora-2"],
        "refused": [400, "unknown_parameter", "foo"],
    }


def test_javascript_client_makes_a_clip(tmp_path, modules):
    assert run_client("video", tmp_path, modules) == {
        "status": "completed",
        "seconds": "4",
        "variants": [["video/mp4", True], ["image/webp", True], ["image/jpeg", True]],
        "listed": [True],
        "deleted": True,
    }
