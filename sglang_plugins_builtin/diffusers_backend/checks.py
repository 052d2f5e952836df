"""What ``sglang doctor`` asks about the packages behind this backend."""

import importlib.metadata
import re

from sglang_core import CheckResult

#: The oldest versions whose interfaces this backend was written for.
_OLDEST = {"diffusers": (0, 36), "transformers": (5, 0), "accelerate": (1, 0)}


def check_diffusers() -> CheckResult:
    """Say whether diffusers is there and new enough."""
    return _check("diffusers")


def check_transformers() -> CheckResult:
    """Say whether transformers is there and new enough."""
    return _check("transformers")


def check_accelerate() -> CheckResult:
    """Say whether accelerate, which offloads and loads without double copies, is there and new enough."""
    return _check("accelerate")


def _check(package: str) -> CheckResult:
    oldest = ".".join(str(part) for part in _OLDEST[package])
    remedy = f'pip install --upgrade "{package}>={oldest}"'
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return CheckResult(
            status="warning",
            message=f"{package} is not installed; the diffusers backend cannot run",
            remedy='pip install "sglang-plugins[diffusers]"',
        )
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST[package]:
        message = f"{package} {version} is older than {oldest}, the oldest supported"
        return CheckResult(status="problem", message=message, remedy=remedy)
    return CheckResult(status="ok", message=f"{package} {version}")
