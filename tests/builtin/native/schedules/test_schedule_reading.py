"""What is read of scheduler_config.json, and what is refused by name."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import sglang_plugins_builtin.demo_models as demo_models
from sglang_core import ComponentDescription, ModelLoadError
from sglang_plugins_builtin.native.schedules.reading import load_schedule, read_schedule, schedule_of
from sglang_plugins_builtin.native.schedules.settings import FlowMatchEulerSettings, UniPCSettings

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
UNIPC = {"_class_name": "UniPCMultistepScheduler", **FLOW}
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


def scheduler(class_name: str, **config: object) -> ComponentDescription:
    return ComponentDescription(name="scheduler", library="diffusers", class_name=class_name, config=config)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**UNIPC, "use_flow_sigmas": False}, "use_flow_sigmas=False"),
        ({**UNIPC, "prediction_type": "epsilon"}, "prediction_type='epsilon'"),
        ({**UNIPC, "predict_x0": False}, "predict_x0=False"),
        ({**UNIPC, "solver_order": 4}, "solver_order=4"),
        ({**UNIPC, "solver_order": True}, "solver_order=True"),
        ({**UNIPC, "solver_type": "bh3"}, "solver_type='bh3'"),
        ({**UNIPC, "solver_p": {"x": 1}}, "solver_p={'x': 1}"),
        ({**UNIPC, "lower_order_final": False}, "lower_order_final=False"),
        ({**UNIPC, "use_karras_sigmas": True}, "use_karras_sigmas=True"),
        ({**UNIPC, "use_dynamic_shifting": True}, "use_dynamic_shifting=True"),
        ({**UNIPC, "thresholding": True}, "thresholding=True"),
        ({**UNIPC, "final_sigmas_type": "half"}, "final_sigmas_type='half'"),
        ({**UNIPC, "flow_shift": "3"}, "flow_shift='3'"),
        ({**UNIPC, "disable_corrector": "first"}, "disable_corrector='first'"),
        ({**EULER, "stochastic_sampling": True}, "stochastic_sampling=True"),
        ({**EULER, "use_dynamic_shifting": True}, "use_dynamic_shifting=True"),
        ({**EULER, "invert_sigmas": True}, "invert_sigmas=True"),
        ({**EULER, "use_beta_sigmas": True}, "use_beta_sigmas=True"),
        ({**EULER, "use_karras_sigmas": True}, "use_karras_sigmas=True"),
        ({**EULER, "use_exponential_sigmas": True}, "use_exponential_sigmas=True"),
        ({**EULER, "time_shift_type": "cubic"}, "time_shift_type='cubic'"),
        ({**UNIPC, "num_train_timesteps": 0}, "num_train_timesteps=0"),
        ({**UNIPC, "flow_shift": 0}, "flow_shift=0"),
        ({**UNIPC, "flow_shift": float("nan")}, "flow_shift=nan"),
        ({**UNIPC, "shift_terminal": 1.0}, "shift_terminal=1.0"),
        ({**EULER, "num_train_timesteps": 0.5}, "num_train_timesteps=0.5"),
        ({**EULER, "shift": -1.0}, "shift=-1.0"),
        ({**EULER, "shift_terminal": 2.0}, "shift_terminal=2.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unsupported_setting_is_named(config, named):
    with pytest.raises(ModelLoadError) as caught:
        read_schedule(config, "scheduler/scheduler_config.json")

    assert caught.value.problem == f"the native backend has no {named} as scheduler/scheduler_config.json asks for"
    assert caught.value.remedy == "use --backend diffusers, which has every noise schedule"


def test_an_unknown_scheduler_is_named():
    with pytest.raises(ModelLoadError) as caught:
        read_schedule({"_class_name": "DDIMScheduler"}, "scheduler_config.json")

    expected = "the noise schedule DDIMScheduler in scheduler_config.json is not one of the native backend"
    assert caught.value.problem == expected


def test_dynamic_shifting_is_read_for_families_that_tell_the_size() -> None:
    settings = read_schedule({**EULER, "use_dynamic_shifting": True}, "scheduler_config.json", shifts_by_size=True)

    assert settings == FlowMatchEulerSettings(use_dynamic_shifting=True)


def test_a_line_through_one_point_is_refused() -> None:
    config = {**EULER, "use_dynamic_shifting": True, "base_image_seq_len": 256, "max_image_seq_len": 256}

    with pytest.raises(ModelLoadError) as caught:
        read_schedule(config, "scheduler_config.json", shifts_by_size=True)

    assert "max_image_seq_len=256" in caught.value.problem


def test_the_class_in_the_index_decides_as_in_diffusers() -> None:
    component = scheduler("UniPCMultistepScheduler", _class_name="FlowMatchEulerDiscreteScheduler", **FLOW)

    assert isinstance(schedule_of(component), UniPCSettings)


def test_unknown_setting_is_ignored_as_by_diffusers_but_said_when_it_is_loaded(caplog) -> None:
    component = scheduler("FlowMatchEulerDiscreteScheduler", _diffusers_version="1", new_idea=3)
    with caplog.at_level(logging.WARNING):
        schedule_of(component)
        load_schedule(component)

    assert caplog.messages == ["scheduler_config.json: new_idea not used"]


def test_settings_of_the_embedded_model_are_read() -> None:
    folder = Path(demo_models.__file__).parent / "weights" / "shapes-image"
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())

    assert read_schedule(config, "scheduler_config.json") == FlowMatchEulerSettings(shift=3.0)


def test_reading_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, sglang_plugins_builtin.native.schedules.reading; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert {"torch", "numpy"}.isdisjoint(done.stdout.split())
