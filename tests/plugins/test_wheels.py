"""Plugins as strangers install them: wheels, built and installed by pip into a fresh environment, and removed again."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
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


class Environment:
    """A fresh virtual environment that sees the packages of the one that runs the tests, and runs ``sglang``."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        scheme = {"base": str(folder), "platbase": str(folder)}
        scripts = Path(sysconfig.get_path("scripts", "venv", scheme))
        site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        # addsitedir, not the bare path: an editable installation is a .pth file itself.
        host = sysconfig.get_path("purelib")
        (site_packages / "host.pth").write_text(f"import site; site.addsitedir({host!r})\n", encoding="utf-8")
        self.python = scripts / ("python.exe" if os.name == "nt" else "python")
        self._folder = folder

    def pip(self, *words: object) -> None:
        """Let the pip of the tests work on this environment."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *words]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, wheel: Path) -> None:
        self.pip("install", "--quiet", "--no-index", "--no-deps", wheel)

    def sglang(self, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "PYTHONPATH"))}
        return subprocess.run(
            [self.python, "-m", "sglang_core", *(str(word) for word in words)],
            cwd=self._folder,
            env={**kept, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def settings(self, *words: object, **variables: str) -> dict[str, str]:
        """Return ``--print-config`` of ``generate`` as key and the rest of its line."""
        done = self.sglang("generate", *words, "--print-config", **variables)
        assert done.returncode == 0, done.stderr
        return dict(line.split(": ", 1) for line in done.stdout.splitlines() if not line.startswith("#"))


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a package with pip and hatchling, without network."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", folder, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob(f"{source.name.replace('-', '_')}-*.whl"))


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
    hello = folder / HELLO.name
    shutil.copytree(HELLO, hello, ignore=shutil.ignore_patterns("__pycache__", "build"))  # leave no traces beside it
    sources = {
        "hello": hello,
        "broken": write_package(folder, "broken", BROKEN),
        "painter": write_package(folder, "painter", BACKEND),
    }
    return {name: build_wheel(source, folder / "built") for name, source in sources.items()}


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
