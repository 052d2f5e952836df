"""``sglang attention``, and the backends as the host sees them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from sglang_core import AttentionCapabilities, Availability, ConfigError, hookimpl
from sglang_plugins_builtin.attention import flash_versions
from sglang_plugins_builtin.attention.backends import BUILT_IN

PAGE = Path(__file__).parents[3] / "docs" / "attention.md"


def invoke(manager, *words):
    command = manager.commands.get("attention")
    return CliRunner().invoke(command, words, obj=manager, standalone_mode=False)


class Stranger:
    """An attention backend as somebody else's package brings it."""

    name = "stranger"
    aliases = ()
    order = None
    is_lossy = True
    capabilities = AttentionCapabilities(has_cross=False, max_head_dim=64)
    parameters: ClassVar = {"window": int}

    def probe(self):
        return Availability.no("stranger is not compiled", "compile it")

    @hookimpl
    def sglang_register_attention_backends(self):
        return [self]


def test_every_backend_is_listed_with_state_reason_and_remedy(manager):
    manager.register(Stranger(), "stranger")

    lines = invoke(manager, "--json").output
    rows = {row["name"]: row for row in json.loads(lines)["attention_backends"]}

    assert set(rows) == {*(backend.name for backend in BUILT_IN), "stranger"}
    assert rows["torch_sdpa"]["available"]
    assert rows["stranger"]["reason"] == "stranger is not compiled"
    assert rows["stranger"]["parameters"] == {"window": "int"}
    assert rows["stranger"]["plugin"] == "stranger"
    assert not rows["stranger"]["capabilities"]["cross"]


def test_the_table_aligns_names_and_says_why_not(manager):
    manager.register(Stranger(), "stranger")

    lines = invoke(manager).output.splitlines()

    assert "torch_sdpa        available    automatic  exact  no limits" in lines
    place = lines.index("stranger          unavailable  asked for  lossy  heads up to 64; without cross")
    assert lines[place + 1 : place + 3] == ["  stranger is not compiled", "  Try: compile it"]


def test_bench_times_what_runs_and_says_why_the_others_do_not(manager):
    manager.register(Stranger(), "stranger")

    done = invoke(manager, "--bench", "--json", "--device", "cpu", "--tokens", "32", "--heads", "2", "--repeats", "1")
    answer = json.loads(done.output)
    timings = {timing["name"]: timing for timing in answer["timings"]}

    assert answer["shape"]["tokens"] == 32
    assert timings["torch_sdpa"]["median_ms"] > 0
    assert timings["torch_sdpa"]["relative_l2"] < 1e-2  # bf16
    assert timings["stranger"]["median_ms"] is None
    assert timings["stranger"]["problem"] == "stranger is not compiled"


def test_bench_takes_the_shapes_of_a_model(manager):
    done = invoke(manager, "--bench", "--model-path", "demo/shapes-image", "--device", "cpu", "--width", "64",
                  "--height", "128", "--repeats", "1")  # fmt: skip

    assert done.exception is None
    assert done.output.splitlines()[0].startswith("32 tokens, 4 heads of 48, ")
    assert "transformer of demo/shapes-image at 64 x 128" in done.output


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["--tokens", "8"], "--tokens says what to time", "add --bench"),
        (["--bench", "--num-frames", "5"], "--num-frames needs a model whose shapes it changes", "add --model-path"),
    ],
)
def test_options_that_would_change_nothing_are_refused(manager, words, problem, remedy):
    with pytest.raises(ConfigError) as refused:
        raise invoke_error(manager, words)

    assert refused.value.problem == problem
    assert remedy in refused.value.remedy


def invoke_error(manager, words):
    error = invoke(manager, *words).exception
    assert error is not None
    return error


def test_no_lossy_backend_is_chosen_automatically():
    assert [backend.name for backend in BUILT_IN if backend.is_lossy and backend.order is not None] == []


def test_names_of_diffusers_lead_to_their_counterparts(manager):
    names = {
        "native": "torch_sdpa",
        "_native_cudnn": "torch_cudnn_sdpa",
        "_native_math": "reference",
        "flash": "fa",
        "_flash_3_hub": "fa3",
        "flash_4_hub": "fa4",
        "sage": "sage_attn",
        "sage_blackwell_hub": "sage_attn_3",
        "xformers": "xformers",
    }

    assert {name: manager.attention_backends.get(name).name for name in names} == names


def test_an_installed_version_that_has_no_gpu_is_not_available(monkeypatch):
    monkeypatch.setattr(flash_versions, "_is_there", lambda module: module == "flash_attn")
    monkeypatch.setattr(flash_versions, "gpu_capability", lambda: None)
    fa = next(backend for backend in BUILT_IN if backend.name == "fa")

    answer = fa.probe()

    assert (answer.is_available, answer.reason) == (False, "this machine has no NVIDIA GPU whose driver answers")


@pytest.mark.parametrize("files", [["__init__.py"], ["cute/__init__.py"], ["__init__.py", "cute/__init__.py"]])
def test_versions_that_share_a_package_are_told_apart_without_importing_it(tmp_path, monkeypatch, files):
    for file in files:
        path = tmp_path / "flash_attn" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    found = {version.name for version in flash_versions.VERSIONS if version.module()}

    assert found == {name for name, file in (("fa2", "__init__.py"), ("fa4", "cute/__init__.py")) if file in files}


def test_listing_imports_nothing_heavy():
    probe = (
        "import sys, click\nfrom sglang_core import create_plugin_manager\n"
        "m = create_plugin_manager(only_built_ins=True)\n"
        "m.commands.get('attention').main([], obj=m, standalone_mode=False)\n"
        "print(*sorted({'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)), end='END')"
    )

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "END"


@pytest.mark.parametrize("backend", BUILT_IN, ids=lambda backend: backend.name)
def test_backend_is_documented_with_what_it_is(backend):
    row = next(
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{backend.name}` |")
    )

    assert ("lossy" in row) == backend.is_lossy
    assert (f"| {backend.order} |" in row) == (backend.order is not None)
    for alias in backend.aliases:
        assert f"`{alias}`" in row
