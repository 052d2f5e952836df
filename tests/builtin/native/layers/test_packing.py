"""The fast kernels of a CPU's linear layers, against float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from sglang_plugins_builtin.native.layers.linear import Activation, ChangeableKernel, Linear, activate
from sglang_plugins_builtin.native.layers.onednn import is_supported
from sglang_plugins_builtin.native.layers.packing import pack_module
from sglang_plugins_builtin.native.layers.widened import WidenedKernel, is_faster

needs_onednn = pytest.mark.skipif(not is_supported(), reason="oneDNN has no bfloat16 on this processor")
KERNELS = [pytest.param("onednn", marks=needs_onednn), "widened"]


@pytest.fixture
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    monkeypatch.setattr("sglang_plugins_builtin.native.layers.widened.is_faster", lambda: name == "widened")
    return name


def linear(*, dtype: torch.dtype = torch.bfloat16, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    layer = Linear(48, 80, bias=bias)
    layer.weight = nn.Parameter(torch.randn(80, 48, dtype=dtype), requires_grad=False)
    if bias:
        layer.bias = nn.Parameter(torch.randn(80, dtype=dtype), requires_grad=False)
    return layer


@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
@pytest.mark.parametrize("activation", [None, "gelu_tanh", "gelu", "silu"])
@pytest.mark.parametrize("shape", [(7, 48), (2, 5, 48), (1, 0, 48), (2, 40, 48)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_is_no_further_from_float64_than_a_plain_one(
    kernel: str, activation: Activation | None, shape: tuple[int, ...], bias: bool
) -> None:
    layer, x = linear(bias=bias), torch.randn(shape, dtype=torch.bfloat16)
    offset = None if layer.bias is None else layer.bias.double()
    exact = activate(functional.linear(x.double(), layer.weight.double(), offset), activation)
    plain = layer(x, activation)

    assert pack_module(nn.ModuleList([layer])) == 1
    packed = layer(x, activation)

    assert packed.shape == plain.shape
    assert packed.dtype == torch.bfloat16
    # 2 %: the order of the sums differs, and the activation is rounded once in place of twice
    assert (packed.double() - exact).norm() <= 1.02 * (plain.double() - exact).norm()


@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
def test_packing_keeps_one_form_of_the_weight_and_does_nothing_twice(kernel: str) -> None:
    layer = linear()
    weight = layer.weight.clone()

    pack_module(layer)

    assert layer.weight.numel() == 0
    assert pack_module(layer) == 0
    assert isinstance(layer.kernel, ChangeableKernel)
    assert torch.equal(layer.kernel.plain_weight(), weight)


@pytest.mark.parametrize("shape", [(31, 700), (32, 700), (1025, 700), (2, 1500, 700)])
def test_a_widened_layer_computes_every_block_of_rows_and_tokens(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sglang_plugins_builtin.native.layers.widened._WEIGHT_VALUES", 700 * 600)
    monkeypatch.setattr("sglang_plugins_builtin.native.layers.widened._INPUT_VALUES", 700 * 1024)
    weight, bias, x = torch.randn(1300, 700), torch.randn(1300), torch.randn(shape)
    weight, bias, x = (tensor.bfloat16() for tensor in (weight, bias, x))

    actual = WidenedKernel(weight, bias)(x, None)

    expected = functional.linear(x.float(), weight.float(), bias.float())
    torch.testing.assert_close(actual, expected.bfloat16(), rtol=0.01, atol=0.05)  # of bfloat16, 8 bits


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "avx2 avx512f avx512_bf16 amx_bf16", False),
        ("GenuineIntel", "avx2 avx512f avx512_bf16", True),
        ("GenuineIntel", "avx2", True),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", False),
        ("AuthenticAMD", "avx2", True),
        ("ARM", "asimd bf16", False),
    ],
)
def test_processors_without_matrix_units_widen(
    vendor: str, flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"processor : 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags} avx\n\nprocessor : 1\n")
    monkeypatch.setattr("sglang_plugins_builtin.native.layers.widened.Path", lambda _: facts)

    assert is_faster() is expected


#: Packs eight layers of 8 MiB and prints by how much the process grew on the way.
_PROBE = """
import re
from pathlib import Path
import torch
from torch import nn
from sglang_plugins_builtin.native.layers.linear import Linear
from sglang_plugins_builtin.native.layers import widened
from sglang_plugins_builtin.native.layers.packing import pack_module

def resident(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

torch.set_num_threads(1)
widened.is_faster = lambda: False
layers = nn.ModuleList(Linear(2048, 2048, bias=False) for _ in range(9))
for layer in layers:
    layer.weight = nn.Parameter(torch.ones(2048, 2048, dtype=torch.bfloat16), requires_grad=False)
pack_module(layers[8])  # what oneDNN makes for itself at first
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
assert pack_module(layers) == 8
print(resident("VmHWM") - before, resident("VmRSS") - before)
"""


@needs_onednn
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
def test_packed_weights_replace_the_plain_ones_one_by_one() -> None:
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}

    done = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, check=True)

    peak_mib, kept_mib = (float(word) for word in done.stdout.split())
    assert peak_mib < 8 + 4  # one layer twice, of 64 MiB
    assert kept_mib < 4


def test_other_precisions_stay_as_they_are() -> None:
    layer = linear(dtype=torch.float32)

    assert pack_module(layer) == 0
    assert layer.kernel is None
