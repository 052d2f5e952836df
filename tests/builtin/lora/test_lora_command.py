"""Adapters on the command line, by the real command."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from lora_adapters import demo_layers, pair_shapes, write_adapter, write_header
from PIL import Image

SMALL = ("--prompt", "a red circle", "--width", "64", "--height", "64", "--num-inference-steps", "2", "--device", "cpu")


def sglang(folder, *words):
    """Run the command in a folder; return its exit code, output and errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "HF_"))}
    done = subprocess.run(
        [sys.executable, "-m", "sglang_core", *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**kept, "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_plan_tells_each_adapter_and_its_strength(tmp_path):
    for name in ("a", "b"):
        write_header(tmp_path / f"{name}.safetensors", pair_shapes(demo_layers("to_q"), prefix="transformer."))
    adapters = ("--lora-path", "a.safetensors", "b.safetensors", "--lora-nickname", "my-style", "other")

    _, scaled, _ = sglang(tmp_path, "explain", *adapters, "--lora-scale", "0.5")
    _, chosen, _ = sglang(tmp_path, "explain", "--json", *adapters, "--lora.my-style", "-0.25")

    assert (
        "transform   lora  (my-style: a.safetensors, strength 0.5 in transformer; "
        "other: b.safetensors, strength 0.5 in transformer)"
    ) in scaled
    (transform,) = json.loads(chosen)["transforms"]
    assert transform["reason"] == "my-style: a.safetensors, strength -0.25 in transformer"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--lora-path", "./gone.safetensors"), "--lora-path ./gone.safetensors: there is no such file or folder"),
        (("--lora-path", "wrong.safetensors"), "do not fit proj_out.weight of transformer"),
        (("--lora-nickname", "style"), "lora_nickname is given, and there is no adapter"),
        (("--lora-path", "wrong.safetensors", "--lora-scale", "much"), "--lora-scale"),
    ],
)
def test_mistake_is_one_sentence_with_a_remedy(words, problem, tmp_path):
    write_header(tmp_path / "wrong.safetensors", pair_shapes({"transformer.proj_out": (7, 7)}))

    code, out, err = sglang(tmp_path, "generate", *SMALL, *words)

    assert code == 2
    assert out == ""
    assert problem in err
    assert "Try: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "outputs").exists() or not list((tmp_path / "outputs").iterdir())


@pytest.mark.model
def test_picture_made_with_an_adapter_is_made_again_from_its_receipt(tmp_path):
    style = write_adapter(tmp_path / "style.safetensors", demo_layers("to_q", "img_mlp.net.2"))
    made = sglang(tmp_path, "generate", *SMALL, "--lora-path", str(style), "--output-file-path", "styled.png")
    plain = sglang(tmp_path, "generate", *SMALL, "--output-file-path", "plain.png")
    again = sglang(tmp_path, "generate", "--from-file", "styled.png", "--output-file-path", "again.png")

    assert [code for code, _, _ in (made, plain, again)] == [0, 0, 0], (made, plain, again)
    styled, unstyled, repeated = (
        np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("styled", "plain", "again")
    )
    assert np.array_equal(styled, repeated)
    assert not np.array_equal(styled, unstyled)
