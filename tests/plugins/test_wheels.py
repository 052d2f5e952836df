"""Plugins as strangers install them: wheels, built and installed by pip into a fresh environment, and removed again."""

import json
import textwrap
from pathlib import Path

import pytest
from fresh_environment import Environment, build_wheel, build_wheel_of_copy
from model_folders import write_pipeline

HELLO = Path(__file__).parents[2] / "plugins" / "sglang-hello"

BROKEN = "import a_package_that_is_not_there\n"

BACKEND = """
from sglang_core import hookimpl
from sglang_core.testing import NoOpBackend


@hookimpl
def sglang_register_execution_backends():
    return [NoOpBackend(name="painter", order=500)]
"""


def write_package(folder: Path, name: str, module: str) -> Path:
    """Write a package of one module that is the plugin ``name``."""
    source = folder / f"sglang-{name}"
    source.mkdir(parents=True)
    project = f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "sglang-{name}"
        version = "1.0"
        [project.entry-points."sglang.plugins"]
        {name} = "sglang_{name}"
        [tool.hatch.build.targets.wheel]
        include = ["sglang_{name}.py"]
        """
    (source / "pyproject.toml").write_text(textwrap.dedent(project), encoding="utf-8")
    (source / f"sglang_{name}.py").write_text(module, encoding="utf-8")
    return source


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    sources = {
        "broken": write_package(folder, "broken", BROKEN),
        "painter": write_package(folder, "painter", BACKEND),
    }
    built = {name: build_wheel(source, folder / "built") for name, source in sources.items()}
    return {"hello": build_wheel_of_copy(HELLO, folder), **built}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "fresh")


def test_hello_adds_command_flag_key_variable_and_step_and_takes_all_of_them_away(wheels, environment, tmp_path):
    model = write_pipeline(tmp_path / "model")
    (tmp_path / "run.yaml").write_text("count_parameters: true\n", encoding="utf-8")
    flag, variable = "--count-parameters", {"SGLANG_HELLO_COUNT_PARAMETERS": "1"}

    environment.install(wheels["hello"])

    assert environment.sglang("hello", "reader").stdout == "hello, reader\n"
    assert flag in environment.sglang("generate", "--help").stdout
    assert environment.settings()["count_parameters"] == "false  # default"
    assert environment.settings(flag)["count_parameters"] == f"true  # {flag}"
    assert environment.settings("--config", tmp_path / "run.yaml")["count_parameters"].startswith("true")
    assert environment.settings(**variable)["count_parameters"] == "true  # $SGLANG_HELLO_COUNT_PARAMETERS"
    explained = environment.sglang("explain", "--model-path", model, "--prompt", "x", flag)
    assert f"transform   count-parameters  ({flag})" in explained.stdout, explained.stderr

    environment.pip("uninstall", "--quiet", "--yes", "sglang-hello")

    command = environment.sglang("hello")
    assert command.returncode == 2
    assert "unknown command 'hello'" in command.stderr
    assert "unknown option --count-parameters" in environment.sglang("generate", flag).stderr
    assert "unknown key 'count_parameters'" in environment.sglang("generate", "--config", tmp_path / "run.yaml").stderr
    assert "count_parameters" not in environment.settings(**variable)
    assert "hello" not in environment.sglang("plugins", "list").stdout


def test_a_plugin_shows_where_it_comes_from(wheels, environment):
    environment.install(wheels["hello"])

    shown = json.loads(environment.sglang("plugins", "show", "hello", "--json").stdout)

    assert (shown["distribution"], shown["version"], shown["state"]) == ("sglang-hello", "0.1.0", "ok")
    assert {(item["kind"], item["name"]) for item in shown["contributions"]} == {
        ("command", "hello"),
        ("options", "hello"),
        ("pipeline transform", "count-parameters"),
    }
    assert [option["env"] for option in shown["options"]] == ["SGLANG_HELLO_COUNT_PARAMETERS"]


def test_a_broken_plugin_costs_only_itself(wheels, environment):
    environment.install(wheels["hello"])
    environment.install(wheels["broken"])

    listed = environment.sglang("plugins", "list")
    states = {row["name"]: row for row in json.loads(environment.sglang("plugins", "list", "--json").stdout)["plugins"]}

    assert listed.returncode == 0
    assert "plugin 'broken' of sglang-broken 1.0 does not load: ModuleNotFoundError" in listed.stdout
    assert "--disable-plugin broken" in listed.stdout
    assert {name for name, row in states.items() if row["state"] == "failed"} == {"broken"}
    assert environment.sglang("hello").stdout == "hello, world\n"
    assert "Not loaded: plugin 'broken'" in environment.sglang("--help").stdout
    assert "broken" not in environment.sglang("--disable-plugin", "broken", "--help").stdout


def test_a_backend_of_a_plugin_runs_models_until_it_is_removed(wheels, environment, tmp_path):
    words = ("generate", "--model-path", write_pipeline(tmp_path / "model"), "--prompt", "x", "--backend", "painter")
    output = tmp_path / "x.png"
    environment.install(wheels["painter"])

    done = environment.sglang(*words, "--num-inference-steps", 7, "--output-file-path", output, "--json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["outputs"][0]
    assert (result["width"], result["height"], result["receipt"]["plan"]["backend"]) == (16, 16, "painter")
    assert output.is_file()

    environment.pip("uninstall", "--quiet", "--yes", "sglang-painter")

    gone = environment.sglang(*words)
    assert gone.returncode == 2
    assert "unknown execution backend 'painter'" in gone.stderr
