"""Checks of the folders that are written: results and caches."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sglang_core import CheckResult, OutputOptions, diffusion_cache, user_cache

#: Below this a folder gets a warning.
LOW_OUTPUT_BYTES = 1_000_000_000
LOW_CACHE_BYTES = 20_000_000_000


def check_output_folder() -> CheckResult:
    """Look at the folder that results go to unless told otherwise."""
    path = Path(OutputOptions().output_path)
    return check_folder(path, LOW_OUTPUT_BYTES, "write elsewhere with --output-path")


def check_hub_cache() -> CheckResult:
    """Look at the folder that huggingface_hub downloads to."""
    return check_folder(hub_cache(os.environ), LOW_CACHE_BYTES, "set HF_HOME to a folder on another disk")


def check_diffusion_cache() -> CheckResult:
    """Look at the folder of materialised models."""
    remedy = "set SGLANG_DIFFUSION_CACHE_ROOT to a folder on another disk"
    return check_folder(diffusion_cache(os.environ), LOW_CACHE_BYTES, remedy)


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder of downloaded models, by the rules of huggingface_hub."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    home = environ.get("HF_HOME")
    return Path(home).expanduser() / "hub" if home else user_cache(environ) / "huggingface" / "hub"


def check_folder(path: Path, low_bytes: int, remedy: str) -> CheckResult:
    """Say whether files can be written to a folder (or the folder made), and how much fits in.

    Nothing is left behind, and a missing folder stays missing.

    :param low_bytes: free space below which there is a warning.
    :param remedy: what helps when the folder cannot be written, or is nearly full.
    """
    path = path.absolute()
    nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        return CheckResult(status="problem", message=f"{path}: {nearest} is not a folder", remedy=remedy)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        problem = f"{path}: cannot write to {nearest} ({error.strerror})"
        return CheckResult(status="problem", message=problem, remedy=remedy)
    free = shutil.disk_usage(nearest).free
    is_new = "" if nearest == path else " (made when needed)"
    message = f"{path}{is_new}, {free / 1e9:.1f} GB free"
    return CheckResult(
        status="ok" if free >= low_bytes else "warning", message=message, remedy=remedy * (free < low_bytes)
    )
