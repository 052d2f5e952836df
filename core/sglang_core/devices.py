"""Devices and precisions, as far as they can be told without importing torch."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from attrs import frozen

from .cpu import cpu_features
from .errors import UnavailableError
from .memory import free_device_bytes
from .planning_types import Choice

#: Bytes of one value in each precision.
PRECISION_BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
#: ``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` and ``_MINOR`` of cuda.h.
_CAPABILITY_ATTRIBUTES = (75, 76)
_DRIVERS = {
    "cuda": "install the NVIDIA driver (or ROCm) and a torch build for it, or use --device cpu",
    "xpu": "install Intel's compute runtime and a torch build for it, or use --device cpu",
    "mps": "use --device cpu: MPS is there only on Apple machines",
}


@frozen(kw_only=True)
class Machine:
    """What planning asks about the machine; a test may plan for another one."""

    has_device: Callable[[str], bool]
    #: Free memory of a device in bytes, ``None`` where that can not be told.
    free_bytes: Callable[[str], int | None]


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    return Machine(has_device=has_device, free_bytes=free_device_bytes)


def choose_device(wanted: str, machine: Machine) -> Choice[str]:
    """Return the device to run on; ``auto`` takes the first of cuda, mps, xpu that the machine has, else cpu.

    :raises UnavailableError: if a device was asked for by name that this machine does not have.
    """
    if wanted == "auto":
        for device in ("cuda", "mps", "xpu"):
            if machine.has_device(device):
                return Choice(value=device, reason=f"the first accelerator found ({device})", is_automatic=True)
        return Choice(value="cpu", reason="no accelerator found", is_automatic=True)
    if wanted != "cpu" and not machine.has_device(wanted):
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
def compute_capability() -> tuple[int, int] | None:
    """Return the lowest CUDA compute capability of the visible devices, ``None`` where there is none.

    Asked of the driver itself; ``CUDA_VISIBLE_DEVICES`` counts. No context is made on a device, but a process that
    asked must start others by spawning, not by forking.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return None
    found = [_capability_of(driver, index) for index in range(count.value)]
    return min((capability for capability in found if capability is not None), default=None)


def _capability_of(driver: ctypes.CDLL, index: int) -> tuple[int, int] | None:
    device, numbers = ctypes.c_int(), (ctypes.c_int(), ctypes.c_int())
    if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    for number, attribute in zip(numbers, _CAPABILITY_ATTRIBUTES, strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device) != 0:
            return None
    return numbers[0].value, numbers[1].value


def cpu_has_fast_bf16() -> bool:
    """Say whether the processor multiplies bf16 matrices in hardware (AVX512-BF16, AMX, Arm BF16)."""
    return not cpu_features().isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


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
