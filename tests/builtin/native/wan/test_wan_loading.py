"""Folders whose weights do not fit, and weights that live in other places."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file, save_file

from sglang_core import (
    Choice,
    Generator,
    ModelLoadError,
    RequestError,
    StepControl,
    attention_of,
    create_plugin_manager,
)
from sglang_plugins_builtin.native.wan.loading import load_wan

#: Weight files of components, where they are not those of diffusers.
WEIGHTS = dict.fromkeys(("text_encoder", "image_encoder"), "model.safetensors")


@pytest.fixture
def rewritten(wan_folders, tmp_path) -> Callable[..., Path]:
    """Copy a folder with other weights in one component, as ``change`` makes them."""

    def rewrite(name: str, component: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
        folder = shutil.copytree(wan_folders(name), tmp_path / "rewritten")
        file = folder / component / WEIGHTS.get(component, "diffusion_pytorch_model.safetensors")
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})
        return folder

    return rewrite


def load(folder: Path) -> Generator:
    return Generator.from_pretrained(str(folder), backend="sglang", precision="fp32", save_output=False)


BROKEN = {
    "missing": (
        "t2v",
        "transformer",
        lambda weights: weights.pop("proj_out.bias"),
        "transformer (WanTransformer3DModel) has no weight 'proj_out.bias'",
    ),
    "missing in the second expert": (
        "t2v-experts",
        "transformer_2",
        lambda weights: [weights.pop(name) for name in list(weights) if name.startswith("blocks.1.ffn")],
        "transformer_2 (WanTransformer3DModel) has no weight 'blocks.1.ffn.net.0.proj.bias' and 3 more",
    ),
    "extra": (
        "t2v",
        "transformer",
        lambda weights: weights.update({"blocks.0.spiral.weight": torch.zeros(2)}),
        "transformer (WanTransformer3DModel) has a weight 'blocks.0.spiral.weight' that its class does not have",
    ),
    "of another shape": (
        "t2v",
        "vae",
        lambda weights: weights.update({"post_quant_conv.bias": torch.zeros(7)}),
        "weight 'post_quant_conv.bias' of vae has the shape [7], not [4] as its configuration says",
    ),
    "missing in the text encoder": (
        "t2v",
        "text_encoder",
        lambda weights: weights.pop("encoder.final_layer_norm.weight"),
        "text_encoder (UMT5EncoderModel) has no weight 'encoder.final_layer_norm.weight'",
    ),
}


@pytest.mark.parametrize(("name", "component", "change", "problem"), BROKEN.values(), ids=BROKEN)
def test_weights_that_do_not_fit_are_named(name, component, change, problem, rewritten):
    with pytest.raises(ModelLoadError) as caught:
        load(rewritten(name, component, change))

    assert caught.value.problem == problem
    assert caught.value.remedy


def test_a_missing_weight_of_the_image_encoder_is_named(rewritten):
    def change(weights):
        weights.pop(next(name for name in weights if name.endswith("pre_layrnorm.weight")))

    with pytest.raises(ModelLoadError) as caught:
        load(rewritten("i2v", "image_encoder", change))

    assert caught.value.problem.startswith("image_encoder (CLIPVisionModel) has no weight ")
    assert caught.value.problem.endswith("pre_layrnorm.weight'")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("image_encoder/config.json", '{"intermediate_size": 32}'),
        ("image_encoder/config.json", '{"hidden_act": "none"}'),
        ("image_processor/preprocessor_config.json", "{"),
    ],
    ids=["other sizes", "unknown activation", "no JSON"],
)
def test_an_image_encoder_that_transformers_can_not_read_is_named(file, text, wan_folders, tmp_path):
    folder = shutil.copytree(wan_folders("i2v"), tmp_path / "damaged")
    path = folder / file
    whole = json.loads(path.read_text())
    path.write_text(text if text == "{" else json.dumps({**whole, **json.loads(text)}))

    with pytest.raises(ModelLoadError) as caught:
        load(folder)

    assert caught.value.problem.startswith(f"image_encoder and image_processor of {folder} can not be read: ")
    assert "\n" not in caught.value.problem
    assert caught.value.remedy == "download the model again, with both folders"


def test_latents_that_overflow_are_refused(rewritten):
    folder = rewritten("t2v", "transformer", lambda weights: weights["proj_out.bias"].fill_(float("inf")))

    with load(folder) as generator, pytest.raises(RequestError) as caught:
        generator.generate("a circle", width=32, height=32, num_frames=1, num_inference_steps=2)

    assert caught.value.problem == "the latents hold values that are no numbers after denoising in float32"
    assert "--guidance-scale" in caught.value.remedy


@pytest.mark.parametrize("mode", ["component-offload", "layerwise-offload"])
@pytest.mark.parametrize("name", ["t2v-experts", "i2v", "ti2v-image"])
def test_wherever_weights_live_latents_are_the_same(name, mode, native, wan_folders, images_of):
    loaded = native(name, is_shared=False)
    expected = loaded.latents(**images_of(name))
    plan = loaded.generator.plan
    moved = {
        part: evolve(each, residency=Choice(value=mode, reason="", is_automatic=False))
        for part, each in plan.components.items()
    }
    plan = evolve(plan, components=moved)

    pipeline = load_wan(plan, wan_folders(name), StepControl(), attention_of(create_plugin_manager(), plan))
    loaded.probe.apply(pipeline, plan)
    for _ in range(2):  # the second run finds everything where the first left it
        pipeline.run(loaded.probe.state.request, StepControl())
        assert torch.equal(loaded.final_latents(), expected)
