"""What planning says about Qwen-Image folders whose settings the family does not have."""

import json
import shutil

import pytest
from model_folders import write_pipeline

from sglang_core import RequestError, UnavailableError, create_plugin_manager, plan_run
from sglang_core.testing import make_settings
from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER

REASON = "the native backend has no invert_sigmas=True as scheduler/scheduler_config.json asks for"


@pytest.fixture
def plan(tmp_path):
    """Plan a run of a folder whose noise levels are turned around."""
    folder = write_pipeline(tmp_path / "model")
    config = {"shift": 3.0, "invert_sigmas": True}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")
    manager = create_plugin_manager(only_built_ins=True)
    return lambda **asked: plan_run(manager, make_settings(manager, model_path=str(folder), prompt="x", **asked)).plan


def test_noise_schedule_that_it_does_not_have_goes_to_diffusers_with_the_reason(plan) -> None:
    backend = plan().backend

    assert backend.value == "diffusers"
    assert f"not sglang: {REASON}" in backend.reason


def test_noise_schedule_that_it_does_not_have_is_refused_where_the_backend_is_asked_for(plan) -> None:
    with pytest.raises(UnavailableError) as refused:
        plan(backend="sglang")

    assert refused.value.problem == f"argument 'backend' sglang: {REASON}"
    assert refused.value.remedy == "use --backend diffusers, which has every noise schedule"


@pytest.mark.parametrize(
    ("component", "setting", "reason"),
    [
        ("transformer", {"use_layer3d_rope": True}, "transformer/config.json sets use_layer3d_rope"),
        ("transformer", {"guidance_embeds": True}, "transformer/config.json sets guidance_embeds"),
        ("text_encoder", {"use_sliding_window": True}, "text_encoder/config.json: use_sliding_window is True"),
        ("transformer", {"num_layers": "many"}, "transformer/config.json: num_layers is 'many', not a whole number"),
        ("transformer", {"num_attention_heads": 0}, "transformer/config.json: num_attention_heads is 0, not a whole"),
        ("transformer", {"axes_dims_rope": 16}, "transformer/config.json: axes_dims_rope is 16, not three whole"),
        ("text_encoder", {"hidden_size": -1}, "text_encoder/config.json: hidden_size is -1, not a whole number"),
        ("text_encoder", {"rope_parameters": "x"}, "text_encoder/config.json: rope_parameters is 'x', not an"),
    ],
)
def test_architecture_that_it_does_not_have_goes_to_diffusers_with_the_reason(
    component, setting, reason, tmp_path
) -> None:
    folder = shutil.copytree(WEIGHTS_FOLDER / "shapes-image", tmp_path / "model")
    path = folder / component / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    (config if component == "transformer" else text).update(setting)
    path.write_text(json.dumps(config), encoding="utf-8")
    manager = create_plugin_manager(only_built_ins=True)

    backend = plan_run(manager, make_settings(manager, model_path=str(folder), prompt="x")).plan.backend

    assert backend.value == "diffusers"
    assert f"not sglang: {reason}" in backend.reason


@pytest.mark.parametrize("backend", ["sglang", "diffusers"])
def test_a_single_step_of_a_schedule_with_two_ends_is_refused_before_weights_are_read(backend, tmp_path) -> None:
    folder = shutil.copytree(WEIGHTS_FOLDER / "shapes-image", tmp_path / "model")
    path = folder / "scheduler" / "scheduler_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "shift_terminal": 0.02}
    path.write_text(json.dumps(config), encoding="utf-8")
    manager = create_plugin_manager(only_built_ins=True)
    settings = make_settings(manager, model_path=str(folder), prompt="x", backend=backend, num_inference_steps=1)

    with pytest.raises(RequestError) as refused:
        plan_run(manager, settings)

    assert refused.value.problem == "num_inference_steps: this model takes at least 2 steps, not 1"
    assert refused.value.remedy == "use --num-inference-steps 2 or more"
    assert plan_run(manager, settings.replace(num_inference_steps=2)).plan.requests[0].num_inference_steps == 2
