"""What the terminal plugin writes where no terminal is, run in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_core import ModelOptions, OptionGroup, RunStarted, Settings, StageEnded
from sglang_core.options.settings import merge
from sglang_core.plugins import PluginManager
from sglang_plugins_builtin import terminal
from sglang_plugins_builtin.terminal.config import TerminalOptions
from sglang_plugins_builtin.terminal.listener import RunWatcher

SCRIPT = Path(__file__).with_name("recorded_runs.py")
SUMMARY = "outputs/a.png  512x512  seed 7  2.0 s  0.131 MP/s\n"
PROGRESS = "load: 3 components in 0.5 s\ndenoise: 20 steps in 3.2 s\n"


def run(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
    )


def test_pipe_gets_one_line_for_each_stage_and_the_answer_on_stdout() -> None:
    done = run("completed")

    assert (done.stdout, done.stderr) == (SUMMARY, PROGRESS)


def test_json_leaves_stdout_alone() -> None:
    done = run("completed", "json")

    assert (done.stdout, done.stderr) == ("", PROGRESS + SUMMARY)


@pytest.mark.parametrize("options", [["quiet"], ["quiet", "json"]])
def test_quiet_writes_nothing(options: list[str]) -> None:
    done = run("completed", *options)

    assert (done.stdout, done.stderr) == ("", "")


def test_failed_stage_is_named_as_stopped() -> None:
    done = run("failed")

    assert "denoise: stopped after 5 steps in 1.0 s\n" in done.stderr
    assert done.stdout == ""


def test_show_without_a_terminal_is_a_warning() -> None:
    done = run("completed", "show")

    assert "WARNING: --show has no effect: the output is not a terminal" in done.stderr
    assert done.stdout == SUMMARY


def test_reader_that_left_does_not_disturb_the_run() -> None:
    script = f"{sys.executable} {SCRIPT} completed outputs/é.png | true"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, env=environ)

    assert PROGRESS in done.stderr


def test_path_outside_of_the_encoding_is_escaped() -> None:
    assert run("completed", "outputs/é.png", PYTHONIOENCODING="ascii").stdout.startswith("outputs/\\xe9.png  ")


def test_run_without_terminal_settings_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = RunWatcher()

    watcher.tell(RunStarted(run_id="a", settings=Settings(values={})))
    watcher.tell(StageEnded(run_id="a", stage="load", duration_s=1.0))

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "shown"), [({}, ""), ({"quiet": False}, "load: 1.0 s\n")], ids=["silent", "asked for"]
)
def test_python_api_is_silent_unless_asked(
    given: dict[str, bool], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group = OptionGroup(name="terminal", settings=TerminalOptions)
    host = OptionGroup(name="model", settings=ModelOptions)
    settings = merge([group, host], []).replace(model_path="x", **given)
    watcher = RunWatcher()

    watcher.tell(RunStarted(run_id="a", settings=settings))
    watcher.tell(StageEnded(run_id="a", stage="load", duration_s=1.0))
    watcher.close()

    assert capsys.readouterr() == ("", shown)


def test_runs_at_the_same_time_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = RunWatcher()
    settings, quiet = (
        Settings(values={TerminalOptions: TerminalOptions(quiet=is_quiet)}) for is_quiet in (False, True)
    )

    watcher.tell(RunStarted(run_id="a", settings=settings))
    watcher.tell(RunStarted(run_id="b", settings=quiet))
    watcher.tell(StageEnded(run_id="b", stage="load", duration_s=1.0))
    watcher.tell(StageEnded(run_id="a", stage="load", duration_s=2.0))
    watcher.close()

    assert capsys.readouterr().err == "load: 2.0 s\n"


def test_plugin_registers_and_is_told_events() -> None:
    manager = PluginManager()

    record = manager.register(terminal, "terminal")

    assert record.hooks == ("sglang_on_event", "sglang_register_options")
    assert len(manager.listeners()) == 1


def test_plugin_imports_neither_rich_nor_pillow_until_a_run_needs_them() -> None:
    probe = "import sys, sglang_plugins_builtin.terminal; print(*sys.modules)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=environ)

    assert {"rich", "PIL", "av", "numpy", "torch", "termios"}.isdisjoint(done.stdout.split())
