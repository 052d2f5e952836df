"""Pages of mapped weights are handed back, and nothing else ever is."""

import mmap
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sglang_plugins_builtin.native.layers import Linear
from sglang_plugins_builtin.native.layers.linear import pack_linears
from sglang_plugins_builtin.native.layers.mapped_pages import MappedFiles

MIB = 2**20

linux_only = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")


def mapped(path: Path, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    save_file(tensors, path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in tensors}


def resident_file_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@linux_only
def test_a_mapped_weight_leaves_memory_and_keeps_its_values(tmp_path: Path) -> None:
    values = torch.randn(8, MIB)
    (weight,) = mapped(tmp_path / "w.safetensors", weight=values).values()
    assert torch.equal(weight, values)  # read: its pages are there
    before = resident_file_bytes()

    given_back = MappedFiles().give_back(weight)

    assert given_back > 31 * MIB
    assert before - resident_file_bytes() > 30 * MIB  # the count of the system is late by some pages
    assert torch.equal(weight, values)


@linux_only
def test_neighbours_in_the_file_are_left_alone(tmp_path: Path) -> None:
    tensors = mapped(
        tmp_path / "w.safetensors", a=torch.ones(MIB + 3), b=torch.full((MIB + 5,), 2.0), c=torch.full((MIB,), 3.0)
    )

    assert MappedFiles().give_back(tensors["b"]) > 0

    assert [float(tensors[name].mean()) for name in "abc"] == [1, 2, 3]


def test_plain_memory_is_never_touched(tmp_path: Path) -> None:
    files = MappedFiles()
    made = torch.randn(4, MIB)
    copied = mapped(tmp_path / "w.safetensors", weight=made)["weight"].clone()

    assert files.give_back(made) == 0
    assert files.give_back(copied) == 0

    assert torch.equal(made, copied)


@linux_only
@pytest.mark.parametrize("is_zero_device", [True, False], ids=["/dev/zero", "memfd"])
def test_plain_memory_with_a_path_keeps_its_values(is_zero_device: bool) -> None:
    descriptor = os.open("/dev/zero", os.O_RDWR) if is_zero_device else os.memfd_create("weights")
    if not is_zero_device:
        os.ftruncate(descriptor, 4 * MIB)
    memory = mmap.mmap(descriptor, 4 * MIB, flags=mmap.MAP_PRIVATE)
    os.close(descriptor)
    written = torch.frombuffer(memory, dtype=torch.float32).fill_(3)

    assert MappedFiles().give_back(written) == 0

    assert bool((written == 3).all())


def test_what_is_no_whole_is_kept(tmp_path: Path) -> None:
    weight = mapped(tmp_path / "w.safetensors", weight=torch.randn(2048, 2048))["weight"]

    assert MappedFiles().give_back(weight.t()) == 0
    assert MappedFiles().give_back(weight[:16]) == 0  # small


@linux_only
def test_packed_layers_leave_no_second_copy(tmp_path: Path) -> None:
    size = 2048
    values = {name: torch.randn(size, size) for name in ("to_q", "to_k", "to_v")}
    owner = torch.nn.Module()
    for name, weight in mapped(tmp_path / "w.safetensors", **values).items():
        layer = Linear(size, size, bias=False)
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        setattr(owner, name, layer)
    for layer in owner.children():
        layer.weight.sum()
    before = resident_file_bytes()

    packed = pack_linears(owner, tuple(values), into="to_qkv")

    assert before - resident_file_bytes() > 46 * MIB  # three of 16 MiB
    assert torch.equal(packed.weight, torch.cat(tuple(values.values())))
