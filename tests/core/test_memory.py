from pathlib import Path

import pytest
from model_folders import write_json, write_pipeline

from sglang_core import FolderSource, ModelDescription, describe_model
from sglang_core.memory import available_host_bytes, estimate_activation_bytes, free_device_bytes

MEMINFO = "MemTotal: 8000000 kB\nMemFree: 100 kB\nMemAvailable: 4000000 kB\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", MEMINFO)
    return tmp_path


def test_host_memory_is_what_the_kernel_calls_available(root: Path) -> None:
    assert available_host_bytes(root) == 4_000_000 * 1024


def test_host_memory_is_limited_by_an_enclosing_control_group(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/user/job\n")
    write(root / "sys/fs/cgroup/user/memory.max", "1000000\n")
    write(root / "sys/fs/cgroup/user/memory.current", "700000\n")
    write(root / "sys/fs/cgroup/user/memory.stat", "anon 1\ninactive_file 200000\n")
    write(root / "sys/fs/cgroup/user/job/memory.max", "max\n")
    write(root / "sys/fs/cgroup/user/job/memory.current", "600000\n")

    assert available_host_bytes(root) == 500_000


def test_host_memory_is_limited_by_a_control_group_of_version_1(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu:/\n4:memory:/job\n")
    write(root / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n")
    write(root / "sys/fs/cgroup/memory/job/memory.usage_in_bytes", "400000\n")

    assert available_host_bytes(root) == 600_000


def test_host_memory_is_unknown_without_a_source(tmp_path: Path) -> None:
    assert available_host_bytes(tmp_path) is None


def test_the_cpu_has_the_memory_of_the_host_and_unknown_devices_have_none() -> None:
    assert (free_device_bytes("cpu") or 0) > 0
    assert free_device_bytes("xpu") is None


def model(folder: Path) -> ModelDescription:
    write_pipeline(folder)
    transformer = {"num_attention_heads": 24, "attention_head_dim": 128, "patch_size": 2, "in_channels": 64}
    write_json(folder / "transformer/config.json", transformer)
    vae = {"base_dim": 96, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
    write_json(folder / "vae/config.json", vae)
    return describe_model(FolderSource("m", "directory", folder))


def test_activations_grow_with_pixels_frames_and_batch(tmp_path: Path) -> None:
    description = model(tmp_path)

    def estimate(width: int, frames: int = 1, batch: int = 1) -> int:
        return estimate_activation_bytes(description, width, 512, frames, batch, {"vae": "bf16"})

    assert estimate(1024) > 1.9 * estimate(512)
    assert estimate(512, frames=5) > 3.9 * estimate(512)
    assert estimate(512, batch=2) == 2 * estimate(512)


def test_the_decode_term_is_the_documented_formula(tmp_path: Path) -> None:
    pixels = 1024 * 1024

    estimate = estimate_activation_bytes(model(tmp_path), 1024, 1024, 1, 1, {"vae": "fp32", "transformer": "bf16"})

    assert estimate == 24 * pixels * 96 * 4 + 2 * 3 * 4 * pixels


@pytest.mark.parametrize("value", [None, "8", True, -1, 2.5, [], [0], {}])
def test_odd_configuration_values_do_not_break_the_estimate(tmp_path: Path, value: object) -> None:
    folder = write_pipeline(tmp_path)
    names = ["num_attention_heads", "patch_size", "base_dim", "dim_mult", "temperal_downsample", "block_out_channels"]
    write_json(folder / "vae/config.json", dict.fromkeys(names, value))
    write_json(folder / "transformer/config.json", dict.fromkeys(names, value))

    description = describe_model(FolderSource("m", "directory", folder))

    assert estimate_activation_bytes(description, 64, 64, 1, 1, {}) > 0
