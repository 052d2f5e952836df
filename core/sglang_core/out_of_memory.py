"""Memory that ran out: how it is recognised, and what would fit. Without torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import evolve

from .component_plans import group_of
from .errors import OutOfDeviceMemoryError
from .memory_plans import estimate_of
from .options.host import ExecutionOptions

if TYPE_CHECKING:
    from .backends import CallDescription
    from .memory_plans import MemoryOf
    from .options import Settings
    from .planning_types import ComponentPlan, ExecutionPlan
    from .requests import GenerationRequest

#: torch.OutOfMemoryError, also under its older name in torch.cuda; it is known without importing torch.
_CLASS_NAMES = {"OutOfMemoryError"}
#: The CPU allocator, CUDA and cuBLAS raise a plain RuntimeError.
_MESSAGES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_ASKED = re.compile(r"(?:allocate|you tried to allocate) ([\d.]+ ?(?:[KMGT]i?B|bytes))", re.IGNORECASE)
#: Where the estimate said that it fits and it did not: what is left free of the device, and of the work, for next time.
_CAUTION = 0.75
_GIB = 2**30


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, of a device or of the host."""
    if isinstance(error, MemoryError) or not _CLASS_NAMES.isdisjoint(kind.__name__ for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def out_of_memory_error(error: BaseException, device: str, what: str, remedy: str) -> OutOfDeviceMemoryError:
    """Return the error for the user: what does not fit, and how much more was asked for."""
    asked = _ASKED.search(str(error))
    amount = f" ({asked[1]} more were asked for)" if asked else ""
    return OutOfDeviceMemoryError(f"{what} does not fit into the memory of {device}{amount}", remedy)


def size_text(request: GenerationRequest) -> str:
    """Return the size of a request in words: ``832x480 with 81 frames``."""
    if not request.width or not request.height:
        return "this size"
    frames = f" with {request.num_frames} frames" if (request.num_frames or 1) > 1 else ""
    return f"{request.width}x{request.height}{frames}"


def run_remedy(
    plan: ExecutionPlan, request: GenerationRequest, memory_of: MemoryOf | None, capacity_bytes: int | None
) -> str:
    """Say what helps a request that did not fit.

    :param memory_of: estimates another request of the model; ``None`` if nobody can.
    :param capacity_bytes: all that this process can have of the device, what it holds now included.
    """
    saving = saving_flags(plan.components, plan.settings, plan.device.value)
    if memory_of is None or capacity_bytes is None or not request.width or not request.height:
        return "; or ".join(["ask for a smaller size, or fewer frames", *saving])
    return smaller_remedy(request, plan.call, plan.components, memory_of, capacity_bytes, saving)


def smaller_remedy(
    request: GenerationRequest,
    call: CallDescription,
    components: Mapping[str, ComponentPlan],
    memory_of: MemoryOf,
    capacity_bytes: int,
    saving: list[str],
) -> str:
    """Name the largest size of the request's shape that fits by the estimate, and for a clip the most frames.

    Where even the smallest does not fit, ``saving`` is the remedy: settings that save memory.
    """

    def fits(candidate: GenerationRequest) -> bool:
        return estimate_of(memory_of(candidate), components, None).device_peak_bytes <= limit

    limit = capacity_bytes
    if fits(request):  # then the estimate was too low, or others took the memory
        now = estimate_of(memory_of(request), components, None)
        limit = int(now.device_weights_bytes + _CAUTION * now.activations_bytes)
    smaller = _largest(smaller_sizes(request, call), fits)
    fewer = _largest(fewer_frames(request, call), fits)
    offers = []
    if smaller is not None:
        same = f" with the same {smaller.num_frames} frames" if (smaller.num_frames or 1) > 1 else ""
        offers.append(f"--width {smaller.width} --height {smaller.height}{same}, the largest of this shape that fits")
    if fewer is not None:
        offers.append(f"--num-frames {fewer.num_frames} at this size")
    if offers:
        return "; or ".join(offers)
    if saving:
        return f"no smaller size fits either: save memory with {', '.join(saving)}"
    *_, least = [request, *smaller_sizes(request, call)]
    least = evolve(least, num_frames=1 if least.num_frames else None)
    needed = estimate_of(memory_of(least), components, None).device_peak_bytes / _GIB
    return f"no smaller size fits either: use a device with {needed:.1f} GiB free, or a smaller model"


def _largest(
    candidates: Iterator[GenerationRequest], fits: Callable[[GenerationRequest], bool]
) -> GenerationRequest | None:
    return next((candidate for candidate in candidates if fits(candidate)), None)


def smaller_sizes(request: GenerationRequest, call: CallDescription) -> Iterator[GenerationRequest]:
    """Yield the request in smaller sizes of its shape on the model's grid, the largest first."""
    width, height, grid = request.width or 0, request.height or 0, call.multiple_of
    if width >= height:
        for wide in range((width - 1) // grid * grid, 0, -grid):
            yield evolve(request, width=wide, height=max(grid, round(wide * height / width / grid) * grid))
        return
    for high in range((height - 1) // grid * grid, 0, -grid):
        yield evolve(request, height=high, width=max(grid, round(high * width / height / grid) * grid))


def fewer_frames(request: GenerationRequest, call: CallDescription) -> Iterator[GenerationRequest]:
    """Yield the request with fewer frames that the model can make, the most first."""
    frames, step = request.num_frames or 1, call.frames_step or 1
    for fewer in range((frames - 2) // step * step + 1, 0, -step):
        yield evolve(request, num_frames=fewer)


def saving_flags(components: Mapping[str, ComponentPlan], settings: Settings, device: str) -> list[str]:
    """Return the settings that would save memory and are not in use, from the least to the most costly."""
    flags = []
    execution = settings.of(ExecutionOptions)
    by_group = {
        group: {plan.residency.value for name, plan in components.items() if group_of(name) == group and plan.num_bytes}
        for group in ("text_encoder", "image_encoder", "vae", "dit")
    }
    if by_group["vae"] and not execution.vae_tiling:
        flags.append("--vae-tiling")
    if device not in ("cpu", "mps"):  # they have no other memory to offload to
        moved_first = [group for group in ("text_encoder", "image_encoder", "vae") if "resident" in by_group[group]]
        flags += [f"--{group.replace('_', '-')}-cpu-offload" for group in moved_first]
        if by_group["dit"] - {"layerwise-offload"}:
            flags.append("--dit-layerwise-offload")
    wide = sorted(
        name
        for name, plan in components.items()
        if plan.precision.value == "fp32" and plan.num_bytes and group_of(name) != "vae"
    )
    if wide:
        flags.append("--precision bf16")
    return flags
