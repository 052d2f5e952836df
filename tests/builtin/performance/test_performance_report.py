"""``--perf-dump-path`` and ``--stage-logging``: what is measured of a run, and what is refused."""

import json
import logging
import re

import pytest

from sglang_core import ConfigError, RequestError, create_control, generate_outputs
from sglang_core.testing import make_settings, no_op_plugin


@pytest.fixture
def generate(manager, tiny_model, tmp_path):
    """Generate with a no-op backend of these settings."""

    def run(no_op=None, **settings):
        if "no_op" not in manager.execution_backends:
            manager.register(no_op_plugin(order=-1, **(no_op or {})), "no_op")
        values = {"model_path": str(tiny_model), "output_path": str(tmp_path / "out"), "prompt": "a", **settings}
        merged = make_settings(manager, **values)
        return generate_outputs(manager, merged, create_control(manager, merged))

    return run


def test_report_tells_every_stage_and_step(sglang, tiny_model, tmp_path):
    path = tmp_path / "new" / "times.json"
    words = ["--model-path", tiny_model, "--prompt", "a", "--output-path", tmp_path, "--num-inference-steps", 5]

    done = sglang("generate", *words, "--num-outputs", 2, "--perf-dump-path", path)

    assert done.code == 0, done.err
    report = json.loads(path.read_text(encoding="utf-8"))
    per_output = ["encode", "denoise", "decode", "save"]
    assert [stage["stage"] for stage in report["stages"]] == ["plan", "fetch", "load", *per_output, *per_output]
    assert all(stage["ok"] for stage in report["stages"])
    steps = next(stage["steps"] for stage in report["stages"] if stage["stage"] == "denoise")
    assert (steps["unit"], steps["count"], len(steps["seconds"])) == ("step", 5, 5)
    assert steps["min_seconds"] <= steps["median_seconds"] <= steps["max_seconds"]
    assert [path.name for path in path.parent.iterdir()] == ["times.json"]


def test_times_add_up(generate, tmp_path):
    path = tmp_path / "times.json"

    generate({"step_s": 0.002}, num_inference_steps=5, perf_dump_path=str(path))

    report = json.loads(path.read_text(encoding="utf-8"))
    denoise = next(stage for stage in report["stages"] if stage["stage"] == "denoise")
    assert denoise["seconds"] >= 0.01
    assert sum(denoise["steps"]["seconds"]) <= denoise["seconds"] <= report["total_seconds"]
    assert denoise["share"] == pytest.approx(denoise["seconds"] / report["total_seconds"], abs=1e-4)
    assert sum(row["seconds"] for row in report["totals"].values()) == pytest.approx(report["total_seconds"], abs=0.01)
    assert sum(row["share"] for row in report["totals"].values()) == pytest.approx(1, abs=0.01)


def test_report_says_what_was_run(generate, tiny_model, tmp_path):
    path = tmp_path / "times.json"

    generate(perf_dump_path=str(path), seed=7)

    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["model"] == {"reference": str(tiny_model), "revision": None, "pipeline": "NoOpPipeline"}
    assert (report["backend"], report["outcome"]) == ("no_op", "completed")
    assert (report["plan"]["request"]["seed"], report["plan"]["num_outputs"]) == (7, 1)
    assert set(report["plan"]["precision"]) == {"text_encoder", "transformer", "vae"}
    assert report["memory"]["peak_host_bytes"] > 2**20
    assert "sglang-plugins" in report["versions"]


def test_failed_run_leaves_a_report_too(generate, tmp_path):
    path = tmp_path / "times.json"

    with pytest.raises(RequestError):
        generate({"fails_at": "decode"}, perf_dump_path=str(path))

    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["outcome"] == "failed"
    assert [stage["stage"] for stage in report["stages"] if not stage["ok"]] == ["decode"]


def test_run_that_was_not_planned_leaves_a_report_without_a_plan(generate, tmp_path):
    path = tmp_path / "times.json"

    with pytest.raises(ConfigError):
        generate(perf_dump_path=str(path), backend="no_such_backend")

    report = json.loads(path.read_text(encoding="utf-8"))
    assert (report["outcome"], report["plan"], report["model"]) == ("failed", None, None)


def test_report_replaces_an_older_one(generate, tmp_path):
    path = tmp_path / "times.json"
    path.write_text("old", encoding="utf-8")

    generate(perf_dump_path=str(path))

    assert json.loads(path.read_text(encoding="utf-8"))["outcome"] == "completed"


def test_measuring_changes_nothing_of_the_result(generate, tmp_path):
    plain = generate(output_file_name="a.png")
    measured = generate(output_file_name="b.png", perf_dump_path=str(tmp_path / "times.json"), stage_logging=True)

    assert plain.paths[0].read_bytes() == measured.paths[0].read_bytes()


def test_every_stage_is_logged_when_the_variable_is_set(sglang, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SGLANG_DIFFUSION_STAGE_LOGGING", "1")

    done = sglang("generate", "--model-path", tiny_model, "--prompt", "a", "--output-path", tmp_path)

    lines = [line[line.index("stage ") :] for line in done.err.splitlines() if "stage " in line]
    assert [line.split()[1] for line in lines] == ["plan", "fetch", "load", "encode", "denoise", "decode", "save"]
    assert re.fullmatch(r"stage denoise took \d+\.\d{3} s \(4 steps, median \d+\.\d{3} s\)", lines[4])


def test_stopped_stage_is_logged_as_stopped(generate, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(RequestError):
        generate({"fails_at": "encode"}, stage_logging=True)

    assert any(re.match(r"stage encode stopped after \d", line) for line in caplog.messages)


def test_report_that_cannot_be_written_at_the_end_is_a_warning(generate, tmp_path, caplog):
    folder = tmp_path / "reports"

    def put_a_file_in_the_way(index):
        folder.write_text("", encoding="utf-8")

    generate({"on_step": put_a_file_in_the_way}, perf_dump_path=str(folder / "times.json"))

    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "can not be written" in warning.getMessage()
    assert warning.exc_info is None


def test_folder_is_no_report(sglang, tmp_path):
    done = sglang("generate", "--prompt", "a", "--perf-dump-path", tmp_path)

    assert done.code == 2
    assert f"--perf-dump-path: {tmp_path} is a folder, not the name of a file" in done.err


def test_report_below_a_file_is_refused(sglang, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")

    done = sglang("generate", "--prompt", "a", "--perf-dump-path", tmp_path / "file" / "times.json")

    assert done.code == 2
    assert "is a file, not a folder" in done.err


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["--num-profiled-timesteps", 3], "num_profiled_timesteps does not apply", "add --profile"),
        (["--profile-all-stages"], "profile_all_stages does not apply", "add --profile"),
        (
            ["--profile", "--profile-all-stages", "--num-profiled-timesteps", 3],
            "num_profiled_timesteps and profile_all_stages exclude each other",
            "leave one of them out",
        ),
        (["--profile", "--num-profiled-timesteps", 0], "--num-profiled-timesteps: ", "a whole number"),
    ],
    ids=["steps of no trace", "stages of no trace", "both", "no steps"],
)
def test_what_cannot_apply_is_refused(sglang, words, problem, remedy):
    done = sglang("generate", "--prompt", "a", *words)

    assert done.code == 2
    assert problem in done.err
    assert remedy in done.err


def test_run_that_asks_for_nothing_is_left_alone(generate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    generate()

    assert {path.name for path in tmp_path.iterdir()} == {"out", "tiny"}
