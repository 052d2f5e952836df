"""How memory that ran out is recognised, and which sizes are offered instead."""

import pytest
import torch

from sglang_core import (
    CallDescription,
    GenerationRequest,
    MemoryStage,
    RunMemory,
    is_out_of_memory,
    out_of_memory_error,
)
from sglang_core.out_of_memory import smaller_remedy

MIB = 2**20


def _allocation_failure() -> Exception:
    """What torch's CPU allocator really raises."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError


RECOGNISED = {
    "torch": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."), "2.50 GiB"),
    "cpu allocator": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes."),
        "123 bytes",
    ),
    "python": (MemoryError(), None),
    "cublas": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
}


@pytest.mark.parametrize(("error", "amount"), RECOGNISED.values(), ids=RECOGNISED.keys())
def test_memory_that_ran_out_is_recognised(error: Exception, amount: str | None) -> None:
    assert is_out_of_memory(error)

    shown = out_of_memory_error(error, "cuda", "64x64", "less")

    more = f" ({amount} more were asked for)" if amount else ""
    assert shown.problem == f"64x64 does not fit into the memory of cuda{more}"


def test_failure_of_this_machines_allocator_is_recognised() -> None:
    assert is_out_of_memory(_allocation_failure())


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("shapes differ"), KeyError("memory")])
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def _memory_of(request: GenerationRequest) -> RunMemory:
    """A model that takes 100 bytes for each pixel of each frame."""
    pixels = (request.width or 0) * (request.height or 0) * (request.num_frames or 1)
    return RunMemory(stages=(MemoryStage(name="denoise", activation_bytes=100 * pixels),))


IMAGE = CallDescription(kind="image", parameters={}, multiple_of=16)
VIDEO = CallDescription(kind="video", parameters={}, multiple_of=16, frames_step=4)
OFFERS = {
    "square": (IMAGE, (1024, 1024, None), 100 * 512 * 512, "--width 512 --height 512, the largest of this shape"),
    "wide": (IMAGE, (1024, 512, None), 100 * 512 * 256, "--width 512 --height 256, the largest of this shape"),
    "high": (IMAGE, (512, 1024, None), 100 * 512 * 256, "--width 256 --height 512, the largest of this shape"),
    "one step less": (IMAGE, (64, 64, None), 100 * 64 * 64 - 1, "--width 48 --height 48,"),
    "clip, smaller": (VIDEO, (64, 32, 9), 100 * 32 * 16 * 9, "--width 32 --height 16 with the same 9 frames"),
    "clip, shorter": (VIDEO, (64, 32, 81), 100 * 64 * 32 * 42, "; or --num-frames 41 at this size"),
    "estimate too low": (IMAGE, (64, 64, None), 2**40, "--width 48 --height 48,"),
}


@pytest.mark.parametrize(("call", "size", "capacity", "offer"), OFFERS.values(), ids=OFFERS.keys())
def test_largest_size_that_fits_is_offered(call, size, capacity, offer) -> None:
    request = GenerationRequest(prompt="x", width=size[0], height=size[1], num_frames=size[2])

    assert offer in smaller_remedy(request, call, {}, _memory_of, capacity, [])


def test_where_nothing_fits_settings_that_save_are_named() -> None:
    request = GenerationRequest(prompt="x", width=64, height=64)

    saving = smaller_remedy(request, IMAGE, {}, _memory_of, 10, ["--vae-tiling", "--vae-cpu-offload"])
    nothing = smaller_remedy(request, IMAGE, {}, _memory_of, 10, [])

    assert saving == "no smaller size fits either: save memory with --vae-tiling, --vae-cpu-offload"
    assert nothing == "no smaller size fits either: use a device with 0.0 GiB free, or a smaller model"
