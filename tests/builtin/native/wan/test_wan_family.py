"""What planning says about Wan folders: who runs them, with which values, and why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sglang_core import Generator, RequestError, UnavailableError, create_plugin_manager
from sglang_core.cli.app import create_cli

NAMES = ["t2v", "euler", "t2v-experts", "i2v", "i2v-experts", "ti2v", "ti2v-image"]


@pytest.fixture(scope="module")
def explain() -> Callable[..., dict[str, Any]]:
    """Return the plan that ``sglang explain --json`` prints; settings are given as flags."""
    manager = create_plugin_manager(only_built_ins=True)

    def plan(folder: Path, **settings: Any) -> dict[str, Any]:
        flags = {"model-path": folder, "prompt": "a red circle", **settings}
        given = [(name, each) for name, value in flags.items() for each in (value if type(value) is list else [value])]
        words = [word for name, value in given for word in (f"--{name.replace('_', '-')}", str(value))]
        arguments = ["explain", "--json", *words]
        done = CliRunner().invoke(create_cli(manager), arguments, obj=manager, catch_exceptions=False)
        return json.loads(done.output)

    return plan


@pytest.fixture
def changed(wan_folders, tmp_path) -> Callable[..., Path]:
    """Copy a folder with other values in one of its JSON files; ``None`` takes a key away."""

    def change(name: str, file: str, **values: Any) -> Path:
        folder = shutil.copytree(wan_folders(name), tmp_path / "changed")
        content = {**json.loads((folder / file).read_text()), **values}
        (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return folder

    return change


@pytest.mark.parametrize("name", NAMES)
def test_a_wan_folder_is_run_natively_with_the_values_that_diffusers_takes(name, explain, wan_folders, images_of):
    images = images_of(name)

    plan = explain(wan_folders(name), **images)

    assert plan["backend"]["value"] == "sglang"
    other = explain(wan_folders(name), backend="diffusers", **images)
    assert plan["requests"] == other["requests"]
    assert plan["request_reasons"] == other["request_reasons"]
    parts = [part for part in plan["components"] if part.startswith("transformer")]
    roles = {f"{part}.{role}" for part in parts for role in ("self", "cross")}
    assert plan["component_attention"].keys() == {"text_encoder", *roles}


@pytest.mark.parametrize(
    ("name", "asked"),
    [("t2v", {"width": 40}), ("t2v", {"num_frames": 8}), ("ti2v", {"height": 48}), ("t2v", {"true_cfg_scale": 2.0})],
)
def test_what_cannot_be_made_is_refused_as_for_diffusers(name, asked, explain, wan_folders):
    errors = []
    for backend in ("sglang", "diffusers"):
        with pytest.raises(RequestError) as caught:
            explain(wan_folders(name), backend=backend, **asked)
        errors.append((caught.value.problem, caught.value.remedy))

    assert errors[0] == errors[1]


def test_more_than_one_image_is_refused(explain, wan_folders, images_of):
    pictures = [images_of("i2v", seed)["image_path"] for seed in (1, 2)]

    with pytest.raises(RequestError) as caught:
        explain(wan_folders("i2v"), backend="sglang", image_path=pictures)

    assert caught.value.problem == "this model starts from one image, not 2"
    assert caught.value.remedy == "give one image"


#: Changes that the native backend cannot follow: folder, file, values, reason.
FOREIGN = {
    "another vae": (
        "t2v",
        "model_index.json",
        {"vae": ["diffusers", "AutoencoderKLMagvit"]},
        "its vae is a AutoencoderKLMagvit, the family wan reads AutoencoderKLWan",
    ),
    "no scheduler": ("t2v", "model_index.json", {"scheduler": None}, "has no scheduler"),
    "another second transformer": (
        "t2v-experts",
        "model_index.json",
        {"transformer_2": ["diffusers", "WanVACETransformer3DModel"]},
        "its transformer_2 is a WanVACETransformer3DModel, the family wan reads WanTransformer3DModel",
    ),
    "no boundary": (
        "t2v-experts",
        "model_index.json",
        {"boundary_ratio": None},
        "its second transformer and its boundary_ratio do not fit",
    ),
    "a boundary that is no number": (
        "t2v-experts",
        "model_index.json",
        {"boundary_ratio": "high"},
        "is not a number: 'high'",
    ),
    "unlike experts": (
        "t2v-experts",
        "transformer_2/config.json",
        {"num_layers": 3},
        "its two transformers are of different sizes",
    ),
    "no image encoder": ("i2v", "model_index.json", {"image_encoder": None}, "has no image_encoder"),
    "no image processor": ("i2v", "model_index.json", {"image_processor": None}, "has no image_processor"),
    "a size that is none": (
        "t2v",
        "transformer/config.json",
        {"num_layers": "many"},
        "transformer/config.json does not describe a Wan transformer",
    ),
    "a size below 1": (
        "t2v",
        "transformer/config.json",
        {"num_attention_heads": 0},
        "transformer/config.json does not describe a Wan transformer: its num_attention_heads is 0",
    ),
    "a size of the text encoder below 1": (
        "t2v",
        "text_encoder/config.json",
        {"d_kv": -1},
        "text_encoder/config.json does not describe a UMT5 encoder: its d_kv is -1",
    ),
    "a last frame": (
        "i2v",
        "transformer/config.json",
        {"pos_embed_seq_len": 10},
        "its transformer attends to a last frame too (pos_embed_seq_len), and one image can be given",
    ),
    "another noise schedule": (
        "euler",
        "scheduler/scheduler_config.json",
        {"use_dynamic_shifting": True},
        "the native backend has no use_dynamic_shifting=True as scheduler/scheduler_config.json asks for",
    ),
    "another text encoder": (
        "t2v",
        "text_encoder/config.json",
        {"feed_forward_proj": "relu"},
        "the native backend has no feed_forward_proj='relu' as text_encoder/config.json asks for",
    ),
    "an unknown vae": ("t2v", "vae/config.json", {"spiral": True}, "has the key 'spiral', which its class"),
}


@pytest.mark.parametrize(("name", "file", "values", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_other_folders_go_to_diffusers_with_the_reason(name, file, values, reason, changed, explain, images_of):
    folder = changed(name, file, **values)
    images = images_of(name)

    plan = explain(folder, **images)

    assert plan["backend"]["value"] == "diffusers"
    assert reason in plan["backend"]["reason"]
    with pytest.raises(UnavailableError) as caught:
        explain(folder, backend="sglang", **images)
    assert reason in caught.value.problem
    assert "\n" not in caught.value.problem
    assert caught.value.remedy


def test_a_pipeline_of_another_class_goes_to_diffusers_with_the_reason(changed, explain):
    folder = changed("t2v", "model_index.json", _class_name="WanVideoToVideoPipeline")

    plan = explain(folder)

    assert plan["backend"]["value"] == "diffusers"
    assert "no model family runs WanVideoToVideoPipeline (known: " in plan["backend"]["reason"]
    with pytest.raises(UnavailableError) as caught:
        Generator.from_pretrained(str(folder), backend="sglang")
    assert caught.value.problem.startswith(
        "argument 'backend' sglang: no model family runs WanVideoToVideoPipeline (known: "
    )
    assert caught.value.remedy == "use --backend diffusers, or install a package that brings the family"
