"""Checks of the machine: system, processor, memory."""

import os
import platform
import sys
from pathlib import Path

from sglang_core import CheckResult, cpu_features

#: The embedded model needs about this much.
MIN_MEMORY_BYTES = 2_000_000_000
_BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


def check_platform() -> CheckResult:
    """Name the operating system and the processor."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    message = f"{platform.platform()}, {platform.machine()}, {cores} cores"
    if sys.maxsize < 2**32:
        return CheckResult(status="problem", message=f"{message}, 32-bit Python", remedy="install a 64-bit Python")
    return CheckResult(status="ok", message=message)


def check_bf16() -> CheckResult:
    """Say whether the processor computes in bf16; it matters only where there is no accelerator."""
    flags = cpu_features()
    found = [flag for flag in _BF16_FLAGS if flag in flags]
    if found:
        return CheckResult(status="ok", message=f"the processor computes in bf16 ({', '.join(found)})")
    if not flags:
        return CheckResult(status="ok", message="this system does not tell whether the processor computes in bf16")
    return CheckResult(status="ok", message="the processor has no bf16 arithmetic; on the CPU, fp32 is faster")


def check_memory() -> CheckResult:
    """Say how much memory is there and free, a container's limit included."""
    total, free = _memory_bytes(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))
    if total is None:
        return CheckResult(status="ok", message="this system does not tell how much memory it has")
    message = f"{total / 1e9:.1f} GB"
    if free is not None:
        message += f", {free / 1e9:.1f} GB free"
    if (total if free is None else free) < MIN_MEMORY_BYTES:
        remedy = "close other programs, or use a machine with more memory"
        return CheckResult(status="warning", message=message, remedy=remedy)
    return CheckResult(status="ok", message=message)


def _memory_bytes(meminfo: Path, cgroup: Path) -> tuple[int | None, int | None]:
    """Return total and available bytes, each ``None`` if unknown."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return _physical_memory_bytes(), None
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
    total = kib["MemTotal"] * 1024 if "MemTotal" in kib else None
    free = kib["MemAvailable"] * 1024 if "MemAvailable" in kib else None
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is not None and (total is None or limit < total):
        total = limit
        if used is not None:
            free = max(0, limit - used) if free is None else min(free, max(0, limit - used))
    return total, free


def _physical_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit
