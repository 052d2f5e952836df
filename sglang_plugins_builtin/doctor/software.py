"""Checks of what is installed: Python, packages, torch and its devices."""

import importlib.util
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import CheckResult

if TYPE_CHECKING:
    from types import ModuleType

MIN_PYTHON = (3, 11)
#: What ``generate`` works with.
_MAIN_PACKAGES = ("sglang-plugins", "torch", "diffusers", "transformers", "huggingface_hub", "safetensors")
_MEDIA_PACKAGES = ("numpy", "pillow", "av")
#: What makes some models or devices faster, or possible.
_FURTHER_PACKAGES = ("accelerate", "flash-attn", "sageattention", "xformers", "cache-dit", "torchao", "bitsandbytes")
_INSTALL = 'pip install "sglang-plugins[diffusers]"'


def check_python() -> CheckResult:
    """Name the interpreter."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    message = f"{found} at {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        needed = ".".join(str(part) for part in MIN_PYTHON)
        return CheckResult(status="problem", message=message, remedy=f"install Python {needed} or newer")
    return CheckResult(status="ok", message=message)


def check_packages() -> CheckResult:
    """Name the versions of the packages that the built-in plugins know."""
    wanted = [*_MAIN_PACKAGES, *_MEDIA_PACKAGES]
    versions = {name: _version(name) for name in [*wanted, *_FURTHER_PACKAGES]}
    message = ", ".join(f"{name} {found}" for name, found in versions.items() if found) or "none of the known packages"
    missing = [name for name in wanted if name != "sglang-plugins" and versions[name] is None]
    if missing:
        return CheckResult(status="warning", message=f"{message}; missing: {', '.join(missing)}", remedy=_INSTALL)
    return CheckResult(status="ok", message=message)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_torch() -> CheckResult:
    """Import torch and name its version and threads."""
    torch = _import_torch()
    if isinstance(torch, CheckResult):
        return torch
    return CheckResult(status="ok", message=f"{torch.__version__}, {torch.get_num_threads()} threads")


def check_devices() -> CheckResult:
    """Name the devices that torch can use; an NVIDIA driver that torch cannot use is a warning."""
    torch = _import_torch()
    if isinstance(torch, CheckResult):
        return CheckResult(status="warning", message="unknown without torch", remedy=torch.remedy)
    devices = _device_names(torch)
    if devices:
        return CheckResult(status="ok", message=", ".join([*devices, "cpu"]))
    if _has_nvidia_driver() and torch.version.cuda is None:
        return CheckResult(
            status="warning",
            message=f"only cpu: there is an NVIDIA driver, but torch {torch.__version__} is built without CUDA",
            remedy="install a CUDA build of torch: https://pytorch.org/get-started/locally",
        )
    if _has_nvidia_driver():
        return CheckResult(
            status="warning",
            message=f"only cpu: torch {torch.__version__} (CUDA {torch.version.cuda}) finds no device",
            remedy="run nvidia-smi; update the driver if it is older than that CUDA, and look at CUDA_VISIBLE_DEVICES",
        )
    return CheckResult(status="ok", message="only cpu; large models want an accelerator")


def _device_names(torch: "ModuleType") -> list[str]:
    names = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            names.append(f"cuda:{index} {properties.name} ({properties.total_memory / 1e9:.0f} GB)")
    if torch.backends.mps.is_available():
        names.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        names += [f"xpu:{index} {torch.xpu.get_device_name(index)}" for index in range(torch.xpu.device_count())]
    return names


def _import_torch() -> "ModuleType | CheckResult":
    if importlib.util.find_spec("torch") is None:
        return CheckResult(status="problem", message="torch is not installed", remedy=_INSTALL)
    try:
        import torch  # seconds
    except Exception as error:  # a broken build raises OSError, ImportError, RuntimeError
        problem = f"torch does not import: {type(error).__name__}: {error}".splitlines()[0]
        return CheckResult(status="problem", message=problem, remedy="pip install --force-reinstall torch")
    return torch


def _has_nvidia_driver() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
