"""Where components live when nobody says: on the device while they fit, else the least costly offload that does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import evolve

from .component_plans import group_of
from .errors import OutOfDeviceMemoryError
from .memory_plans import estimate_of
from .out_of_memory import saving_flags, size_text, smaller_remedy
from .planning_types import Choice

if TYPE_CHECKING:
    from .backends import CallDescription
    from .memory_plans import MemoryOf, MemoryQuery, RunMemory
    from .planning_types import ComponentPlan, MemoryEstimate

_GIB = 2**30
#: Left free beside the estimate: the driver's context and libraries take some hundred megabytes, and what is free in
#: pieces is not all of use.
_RESERVE_BYTES = 2**30
_RESERVE_SHARE = 0.05
#: Devices that compute in the host's memory: there is nowhere to offload to.
_HOST_MEMORY = ("cpu", "mps")


def with_reserve(num_bytes: int) -> int:
    """Return how much memory should be free for an estimate of ``num_bytes``."""
    return int(num_bytes * (1 + _RESERVE_SHARE)) + _RESERVE_BYTES


def place_components(
    components: Mapping[str, ComponentPlan],
    query: MemoryQuery,
    call: CallDescription,
    memory_of: MemoryOf,
    free_bytes: int | None,
    *,
    is_automatic: bool,
) -> tuple[dict[str, ComponentPlan], MemoryEstimate]:
    """Decide where components live, and estimate what the run takes then.

    :param memory_of: estimates a request of the model.
    :param free_bytes: of the device, ``None`` where that is not known: nothing is offloaded then.
    :param is_automatic: whether the user leaves it to the host.
    :raises OutOfDeviceMemoryError: if even the least does not fit, by an estimate that is known to be good.
    """
    memory, placed = memory_of(query.request), dict(components)
    if is_automatic and free_bytes is not None and query.device not in _HOST_MEMORY:
        placed = choose_residency(components, memory, free_bytes)
    estimate = estimate_of(memory, placed, free_bytes)
    if placed == components or free_bytes is None or not memory.is_upper or estimate.device_peak_bytes <= free_bytes:
        return placed, estimate
    needed, free = estimate.device_peak_bytes / _GIB, free_bytes / _GIB
    saving = [flag for flag in saving_flags(placed, query.settings, query.device) if "offload" not in flag]
    raise OutOfDeviceMemoryError(
        f"{size_text(query.request)} of {query.model.reference} needs at least {needed:.1f} GiB on {query.device}, "
        f"with every component offloaded, and {free:.1f} GiB are free",
        smaller_remedy(query.request, call, placed, memory_of, free_bytes, saving),
    )


def choose_residency(
    components: Mapping[str, ComponentPlan], memory: RunMemory, free_bytes: int
) -> dict[str, ComponentPlan]:
    """Return the components with the first residency of a ladder whose estimate and a reserve fit into free memory.

    If none fits, it is the one that takes the least; of several the last, which takes less for smaller sizes.
    """
    best, least, everything = components, None, 0
    for candidate in _ladder(components, memory):
        peak = estimate_of(memory, candidate, free_bytes).device_peak_bytes
        everything = everything or peak
        if least is None or peak <= least:
            best, least = candidate, peak
        if with_reserve(peak) <= free_bytes:
            break
    return _with_reasons(best, everything, least or 0, free_bytes)


def _ladder(components: Mapping[str, ComponentPlan], memory: RunMemory) -> Iterator[dict[str, ComponentPlan]]:
    """Yield residencies from the fastest to the smallest; each goes on from the one before."""
    current = {name: _placed(plan, "resident") for name, plan in components.items()}
    yield current
    for group, mode in (
        ("text_encoder", "component-offload"),
        ("image_encoder", "component-offload"),
        ("vae", "component-offload"),
        ("dit", "component-offload"),
        ("dit", "layerwise-offload"),
        ("text_encoder", "layerwise-offload"),
    ):
        changed = [
            name
            for name, plan in current.items()
            if group_of(name) == group and plan.num_bytes and (mode == "component-offload" or name in memory.streamed)
        ]
        if changed:
            current = {name: _placed(plan, mode) if name in changed else plan for name, plan in current.items()}
            yield current


def _placed(plan: ComponentPlan, mode: str) -> ComponentPlan:
    return evolve(plan, residency=Choice(value=mode, reason=plan.residency.reason, is_automatic=True))


def _with_reasons(
    components: Mapping[str, ComponentPlan], everything: int, chosen: int, free_bytes: int
) -> dict[str, ComponentPlan]:
    free, needed = free_bytes / _GIB, chosen / _GIB
    reasons = {"resident": f"it fits: about {needed:.1f} GiB are needed, {free:.1f} GiB are free"}
    offloaded = (
        f"with everything resident about {everything / _GIB:.1f} GiB are needed, {free:.1f} GiB are free; "
        f"so about {needed:.1f} GiB"
    )
    return {
        name: plan
        if not plan.num_bytes
        else evolve(plan, residency=evolve(plan.residency, reason=reasons.get(plan.residency.value, offloaded)))
        for name, plan in components.items()
    }
