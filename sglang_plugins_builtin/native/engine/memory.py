"""What this process can have of a device, and the error when a run needs more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sglang_core import (
    ExecutionPlan,
    GenerationRequest,
    OutOfDeviceMemoryError,
    free_device_bytes,
    out_of_memory_error,
    run_remedy,
    size_text,
)

if TYPE_CHECKING:
    from sglang_core import MemoryOf


def capacity_bytes(device: str) -> int | None:
    """Return what is free on a device and what this process holds there, ``None`` where that can not be told."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free, held = free_device_bytes(device), _resident_bytes()
    return None if free is None or held is None else free + held


def _resident_bytes() -> int | None:
    try:
        words = Path("/proc/self/status").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(words[words.index("VmRSS:") + 1]) * 1024 if "VmRSS:" in words else None


def run_out_of_memory(
    error: BaseException, plan: ExecutionPlan, requests: Sequence[GenerationRequest], memory_of: MemoryOf | None
) -> OutOfDeviceMemoryError:
    """Return the error of a request that did not fit, with the largest that would; of several, to run them alone.

    :param requests: of one size.
    :param memory_of: estimates a request; ``None`` if nobody can.
    """
    device, request = plan.device.value, requests[0]
    if len(requests) > 1:
        what = f"a batch of {len(requests)} outputs of {size_text(request)}"
        return out_of_memory_error(error, device, what, "run fewer of them together, or each alone")
    remedy = run_remedy(plan, request, memory_of, capacity_bytes(device))
    return out_of_memory_error(error, device, size_text(request), remedy)
