"""A model family and an attention backend as strangers ship them: built, installed, chosen by name, run, removed."""

import json
import subprocess
from pathlib import Path

import pytest
from fresh_environment import Environment, build_wheel_of_copy
from PIL import Image

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    names = ("sglang-example-attention", "sglang-example-family")
    return {name: build_wheel_of_copy(PLUGINS / name, folder) for name in names}


@pytest.fixture
def environment(wheels, tmp_path):
    environment = Environment(tmp_path / "fresh")
    for wheel in wheels.values():
        environment.install(wheel)
    return environment


@pytest.fixture
def words(environment, tmp_path):
    """A command line for a model of the family, which the package itself has written."""
    model = tmp_path / "mosaic"
    subprocess.run([environment.python, "-m", "sglang_example_family", model], check=True)
    return ("--model-path", model, "--prompt", "a quiet sea", "--width", 64, "--height", 48, "--device", "cpu")


def test_family_and_attention_work_together_and_are_gone_when_removed(environment, words, tmp_path):
    output = tmp_path / "sea.png"
    chosen = ("--backend", "sglang", "--attention-backend", "plain_softmax")

    done = environment.sglang("generate", *words, *chosen, "--output-file-path", output, "--json")

    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["outputs"][0]["receipt"]["plan"]
    assert (plan["backend"], plan["attention"]) == ("sglang", "plain_softmax")
    assert plan["component_attention"] == {"transformer.cross": "plain_softmax", "transformer.self": "plain_softmax"}
    with Image.open(output) as picture:
        assert picture.size == (64, 48)
        assert len(picture.getcolors()) > 10
    assert "plain_softmax" in environment.sglang("attention").stdout

    environment.pip("uninstall", "--quiet", "--yes", "sglang-example-attention")

    gone = environment.sglang("generate", *words, *chosen)
    assert gone.returncode == 2
    assert "unknown attention backend 'plain_softmax'" in gone.stderr

    environment.pip("uninstall", "--quiet", "--yes", "sglang-example-family")

    gone = environment.sglang("generate", *words, "--backend", "sglang")
    assert gone.returncode == 5
    assert "no model family runs MosaicPipeline (known: " in gone.stderr
    assert "Traceback" not in gone.stderr


def test_automatic_choice_takes_the_family_and_leaves_the_backend_alone(environment, words):
    explained = json.loads(environment.sglang("explain", *words, "--json").stdout)

    assert (explained["backend"]["value"], explained["backend"]["automatic"]) == ("sglang", True)
    assert explained["attention"]["value"] == "torch_sdpa"


def test_installed_plugins_say_what_they_bring(environment):
    listed = json.loads(environment.sglang("plugins", "list", "--json").stdout)["plugins"]

    brought = {row["name"]: (row["distribution"], row["state"]) for row in listed}
    assert brought["example_family"] == ("sglang-example-family", "ok")
    assert brought["example_attention"] == ("sglang-example-attention", "ok")
