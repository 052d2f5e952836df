"""The checks of the doctor's own plugin, on this machine and on recorded ones."""

import os
import sys
from pathlib import Path

import pytest

from sglang_core import cpu, diffusion_cache
from sglang_core.plugins import PluginManager
from sglang_plugins_builtin import doctor
from sglang_plugins_builtin.doctor import folders, machine, software
from sglang_plugins_builtin.doctor.findings import examine

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


@pytest.mark.model
def test_own_checks_answer_on_this_machine() -> None:
    manager = PluginManager()
    manager.register(doctor, "doctor")

    findings = list(examine(manager))

    assert [finding.check for finding in findings if finding.message.startswith(("TypeError", "AttributeError"))] == []
    assert all(finding.message for finding in findings)
    assert all(finding.remedy for finding in findings if finding.status != "ok")
    assert next(finding for finding in findings if finding.check == "python").status == "ok"


def test_too_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))

    result = software.check_python()

    assert result.status == "problem"
    assert result.remedy == "install Python 3.11 or newer"


def test_missing_torch_is_a_problem_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    result = software.check_torch()

    assert (result.status, result.message) == ("problem", "torch is not installed")
    assert result.remedy == 'pip install "sglang-plugins[diffusers]"'
    assert software.check_devices().status == "warning"


def test_torch_that_does_not_import_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    result = software.check_torch()

    assert result.status == "problem"
    assert result.message == "torch does not import: OSError: libcudart.so.99: cannot open shared object file"
    assert result.remedy == "pip install --force-reinstall torch"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_version", lambda name: None if name in ("diffusers", "xformers") else "1.0")

    result = software.check_packages()

    assert result.status == "warning"
    assert result.message.endswith("; missing: diffusers")
    assert "torch 1.0" in result.message


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        (None, None, (16_384_000_000, 8_192_000_000)),
        ("max", "5", (16_384_000_000, 8_192_000_000)),
        ("4000000000", "1000000000", (4_000_000_000, 3_000_000_000)),
        ("64000000000", "1000000000", (16_384_000_000, 8_192_000_000)),
    ],
    ids=["no cgroup", "no limit", "container", "limit above the machine"],
)
def test_memory_is_that_of_the_container(
    tmp_path: Path, limit: str | None, used: str | None, expected: tuple[int, int]
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    if limit is not None and used is not None:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text(used)

    assert machine._memory_bytes(tmp_path / "meminfo", tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n", {"fpu", "avx512_bf16", "amx_bf16"}),
        ("Features\t: fp asimd bf16\n", {"fp", "asimd", "bf16"}),
        ("nothing\n", set()),
    ],
)
def test_processor_flags_are_read(tmp_path: Path, text: str, flags: set[str]) -> None:
    (tmp_path / "cpuinfo").write_text(text)

    assert cpu._features_in(tmp_path / "cpuinfo") == flags


def test_folder_that_is_not_there_yet_is_fine_and_stays_away(tmp_path: Path) -> None:
    result = folders.check_folder(tmp_path / "new" / "cache", 1, "move it")

    assert result.status == "ok"
    assert f"{tmp_path}/new/cache (made when needed), " in result.message
    assert list(tmp_path.iterdir()) == []


def test_nearly_full_disk_is_a_warning(tmp_path: Path) -> None:
    result = folders.check_folder(tmp_path, 10**18, "move it")

    assert (result.status, result.remedy) == ("warning", "move it")


def test_file_in_the_way_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")

    result = folders.check_folder(tmp_path / "cache" / "hub", 1, "move it")

    assert (result.status, result.remedy) == ("problem", "move it")
    assert result.message.endswith(f"{tmp_path / 'cache'} is not a folder")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that not even root can write to")
def test_folder_without_permission_is_a_problem() -> None:
    result = folders.check_folder(Path("/proc/sglang"), 1, "move it")

    assert result.status == "problem"
    assert "/proc/sglang: cannot write to /proc (" in result.message


@pytest.mark.parametrize(
    ("environ", "hub", "diffusion"),
    [
        ({}, "~/.cache/huggingface/hub", "~/.cache/sgl_diffusion"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", "/x/sgl_diffusion"),
        ({"HF_HOME": "/h", "SGLANG_DIFFUSION_CACHE_ROOT": "/d"}, "/h/hub", "/d"),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "/c"}, "/c", "~/.cache/sgl_diffusion"),
    ],
)
def test_cache_folders_follow_their_variables(environ: dict[str, str], hub: str, diffusion: str) -> None:
    assert str(folders.hub_cache(environ)) == os.path.expanduser(hub)
    assert str(diffusion_cache(environ)) == os.path.expanduser(diffusion)
