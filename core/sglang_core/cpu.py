"""What the processor can do, without loading anything: backends ask before a device is looked at."""

from functools import cache
from pathlib import Path


@cache
def cpu_features() -> frozenset[str]:
    """Return the features of the processor by the names that Linux has for them (``amx_bf16``); else none."""
    return _features_in(Path("/proc/cpuinfo"))


def _features_in(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())
