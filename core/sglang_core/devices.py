"""Devices and precisions, as far as they can be told without importing torch."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from .errors import UnavailableError
from .planning_types import Choice

#: Bytes of one value in each precision.
PRECISION_BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
_DRIVERS = {
    "cuda": "install the NVIDIA driver (or ROCm) and a torch build for it, or use --device cpu",
    "xpu": "install Intel's compute runtime and a torch build for it, or use --device cpu",
    "mps": "use --device cpu: MPS is there only on Apple machines",
}


def choose_device(wanted: str) -> Choice[str]:
    """Return the device to run on; ``auto`` takes the first of cuda, mps, xpu that the machine has, else cpu.

    :raises UnavailableError: if a device was asked for by name that this machine does not have.
    """
    if wanted == "auto":
        for device in ("cuda", "mps", "xpu"):
            if has_device(device):
                return Choice(value=device, reason=f"the first accelerator found ({device})", is_automatic=True)
        return Choice(value="cpu", reason="no accelerator found", is_automatic=True)
    if wanted != "cpu" and not has_device(wanted):
        raise UnavailableError(f"--device {wanted}: this machine has no {wanted} device", _DRIVERS[wanted])
    return Choice(value=wanted, reason="--device", is_automatic=False)


@cache
def has_device(device: str) -> bool:
    """Say whether the machine has a device and its driver. What torch can do with it shows when it is used."""
    if device == "cuda":
        has_nvidia = (
            Path("/dev/nvidiactl").exists()
            or Path("/dev/dxg").exists()
            or (sys.platform == "win32" and _has_library("nvcuda"))
        )
        return has_nvidia or Path("/dev/kfd").exists()
    if device == "mps":
        return sys.platform == "darwin" and os.uname().machine == "arm64"
    if device == "xpu":
        return Path("/dev/dri").exists() and _has_library("ze_loader")
    return device == "cpu"


def _has_library(name: str) -> bool:
    from ctypes.util import find_library  # it starts a compiler on some systems, so only where needed

    return find_library(name) is not None


@cache
def cpu_has_fast_bf16() -> bool:
    """Say whether the processor multiplies bf16 matrices in hardware (AVX512-BF16, AMX, Arm BF16)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags: set[str] = set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
            break
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def default_precision(device: str, stored: str | None, is_vae: bool) -> Choice[str | None]:
    """Return the precision for a component that nobody decided on."""
    if stored is None:
        return Choice(value=None, reason="it has no weights", is_automatic=True)
    if is_vae:
        return Choice(value="fp32", reason="a VAE loses detail in half precision", is_automatic=True)
    if device == "cpu" and not cpu_has_fast_bf16():
        return Choice(value="fp32", reason="this processor has no fast bf16", is_automatic=True)
    if stored == "fp16" and device == "cuda":
        return Choice(value="fp16", reason="as stored", is_automatic=True)
    reason = "as stored" if stored == "bf16" else f"half the memory of {stored}, with its range"
    return Choice(value="bf16", reason=reason, is_automatic=True)


def torch_is_installed() -> bool:
    """Say whether torch can be imported, without importing it."""
    return importlib.util.find_spec("torch") is not None
