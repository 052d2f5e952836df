"""``--profile``: a trace of torch's profiler in Chrome's JSON."""

import json
import logging

import pytest

from sglang_core import (
    ConfigError,
    Generator,
    StageEnded,
    StageStarted,
    create_control,
    create_plugin_manager,
    generate_outputs,
)
from sglang_core.options.settings import merge
from sglang_core.options.sources import given_in_environment
from sglang_core.testing import make_settings, no_op_plugin
from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER
from sglang_plugins_builtin.performance.config import PerformanceOptions
from sglang_plugins_builtin.performance.profiling import Profiling


@pytest.fixture
def profile(manager, tiny_model, tmp_path):
    """Generate with a no-op backend that multiplies a matrix in every step; return the names in the trace."""

    def work(index):
        import torch

        torch.ones(8, 8) @ torch.ones(8, 8)

    def run(**settings):
        manager.register(no_op_plugin(order=-1, on_step=work), "no_op")
        folder = tmp_path / "traces"
        values = {"model_path": str(tiny_model), "output_path": str(tmp_path / "out"), "prompt": "a", "profile": True}
        merged = make_settings(manager, **{**values, "torch_profiler_dir": str(folder), **settings})
        generate_outputs(manager, merged, create_control(manager, merged))
        return {path.name: names_in(path) for path in sorted(folder.glob("*"))}

    return run


def names_in(path):
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [event["name"] for event in sorted(events, key=lambda event: event.get("ts", 0)) if "name" in event]


def marks(names):
    return [name for name in dict.fromkeys(names) if name.split(" step ")[0] in ("encode", "denoise", "decode")]


def test_trace_holds_five_steps_after_one_to_warm_up(profile):
    ((name, names),) = profile(num_inference_steps=9).items()

    assert name.startswith("denoise-")
    assert name.endswith(".trace.json")
    assert marks(names) == [f"denoise step {index}" for index in (2, 3, 4, 5, 6)]
    assert names.count("aten::matmul") == 5


def test_run_in_the_middle_of_another_is_a_mark_in_its_trace_and_has_none_itself(tmp_path, caplog):
    outer, inner = (Profiling(PerformanceOptions(profile=True), tmp_path / name) for name in ("outer", "inner"))
    began = StageStarted(run_id="a", stage="denoise", total=1)
    ended = StageEnded(run_id="a", stage="denoise", duration_s=0.0)

    outer.stage_started(began)
    outer.paused()
    inner.stage_started(began)
    inner.stage_ended(ended)
    inner.run_ended()
    outer.resumed()
    outer.stage_ended(ended)

    assert "another run" in names_in(tmp_path / "outer")
    assert not (tmp_path / "inner").exists()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "a run is not profiled, for it takes place in the middle of one that is"
    ]


def test_number_of_steps_can_be_given(profile):
    (names,) = profile(num_inference_steps=9, num_profiled_timesteps=2).values()

    assert marks(names) == ["denoise step 2", "denoise step 3"]


@pytest.mark.parametrize(("steps", "traced"), [(1, [1]), (3, [2, 3])])
def test_run_of_few_steps_is_traced_as_far_as_it_goes(profile, steps, traced):
    (names,) = profile(num_inference_steps=steps).values()

    assert [mark for mark in marks(names) if " step " in mark] == [f"denoise step {index}" for index in traced]


def test_all_stages_of_the_first_output_can_be_traced(profile):
    ((name, names),) = profile(num_inference_steps=2, num_outputs=2, profile_all_stages=True).items()

    assert name.startswith("all-stages-")
    assert marks(names) == ["encode", "denoise", "denoise step 1", "denoise step 2", "decode"]
    assert names.count("aten::matmul") == 2


def test_variable_alone_turns_the_trace_on(manager, tiny_model, tmp_path):
    variables = {"SGLANG_DIFFUSION_TORCH_PROFILER_DIR": str(tmp_path / "traces")}
    manager.register(no_op_plugin(order=-1), "no_op")
    values = {"model_path": str(tiny_model), "prompt": "a", "num_inference_steps": 3, "num_profiled_timesteps": 1}
    groups = manager.options.for_command("generate")
    settings = merge(groups, [given_in_environment(groups, variables)]).replace(**values, save_output=False)

    generate_outputs(manager, settings, create_control(manager, settings))

    (path,) = (tmp_path / "traces").glob("*")
    assert [mark for mark in marks(names_in(path)) if " step " in mark] == ["denoise step 2"]


FOLDERS = {
    "profile_dir alone": ({}, "always"),
    "with profile": ({"profile": True}, "always"),
    "with profile and its folder": ({"profile": True, "torch_profiler_dir": "asked"}, "asked"),
    "with the folder of profile only": ({"torch_profiler_dir": "asked"}, "always"),
}


@pytest.mark.parametrize(("given", "folder"), FOLDERS.values(), ids=FOLDERS.keys())
def test_folder_of_the_trace(manager, tiny_model, tmp_path, monkeypatch, given, folder):
    monkeypatch.chdir(tmp_path)
    manager.register(no_op_plugin(order=-1), "no_op")
    values = {"model_path": str(tiny_model), "prompt": "a", "num_inference_steps": 2, "save_output": False}
    settings = make_settings(manager, **values, profile_dir="always", **given)

    generate_outputs(manager, settings, create_control(manager, settings))

    assert [path.parent.name for path in tmp_path.glob("*/*.trace.json")] == [folder]


def test_folder_that_is_a_file_is_refused(manager, tmp_path):
    (tmp_path / "traces").write_text("")

    with pytest.raises(ConfigError, match="traces is a file, not a folder") as refused:
        make_settings(manager, prompt="a", profile_dir=str(tmp_path / "traces"))

    assert "profile_dir" in refused.value.problem


def test_run_without_a_denoising_step_says_that_nothing_was_traced(manager, tiny_model, tmp_path, caplog):
    manager.register(no_op_plugin(order=-1, fails_at="encode"), "no_op")
    settings = make_settings(manager, model_path=str(tiny_model), prompt="a", profile=True, save_output=False)

    with pytest.raises(Exception, match="no_op was told to fail"):
        generate_outputs(manager, settings, create_control(manager, settings))

    assert "nothing was profiled: the run did not come to a step to be traced" in caplog.messages


def test_failed_run_leaves_its_trace(manager, tiny_model, tmp_path):
    def fail(index):
        if index == 4:
            raise RuntimeError("enough")

    manager.register(no_op_plugin(order=-1, on_step=fail), "no_op")
    values = {"model_path": str(tiny_model), "prompt": "a", "profile": True, "save_output": False}
    settings = make_settings(manager, **values, num_inference_steps=9, torch_profiler_dir=str(tmp_path / "traces"))

    with pytest.raises(Exception, match="enough"):
        generate_outputs(manager, settings, create_control(manager, settings))

    (path,) = (tmp_path / "traces").glob("*")
    assert marks(names_in(path)) == ["denoise step 2", "denoise step 3", "denoise step 4"]


def test_place_of_the_trace_is_told(profile, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        (name,) = profile()

    assert f"trace written to {tmp_path / 'traces' / name}" in caplog.text


@pytest.mark.model
@pytest.mark.skipif(not (WEIGHTS_FOLDER / "shapes-image").is_dir(), reason="the embedded model is not in this checkout")
def test_embedded_model_is_measured_and_traced(tmp_path):
    manager = create_plugin_manager(only_built_ins=True)
    dump, traces = tmp_path / "times.json", tmp_path / "traces"
    settings = {"num_inference_steps": 3, "width": 64, "height": 64, "save_output": False, "return_frames": True}

    with Generator.from_pretrained(
        manager=manager, perf_dump_path=str(dump), profile=True, torch_profiler_dir=str(traces), **settings
    ) as generator:
        generator.generate("a red circle")

    report = json.loads(dump.read_text(encoding="utf-8"))
    assert {"encode", "denoise", "decode"} <= set(report["totals"])
    assert report["plan"]["request"]["prompt"] == "a red circle"
    (path,) = traces.glob("denoise-*.trace.json")
    assert [mark for mark in marks(names_in(path)) if " step " in mark] == ["denoise step 2", "denoise step 3"]
