"""Where the components of a loaded pipeline live: on the device, or in host memory until they are used."""

from collections.abc import Mapping
from typing import Any

import torch

from sglang_core import ExecutionPlan, OffloadOptions


def move_if_resident(module: Any, plan: ExecutionPlan, name: str) -> None:
    """Move a component to the device right after loading, so that no two of them wait in host memory."""
    if isinstance(module, torch.nn.Module) and _residency(plan, name) == "resident" and plan.device.value != "cpu":
        module.to(plan.device.value)


def place(pipeline: Any, plan: ExecutionPlan) -> None:
    """Put every component where the plan wants it. On the CPU all of them are there already."""
    if plan.device.value != "cpu":
        device = torch.device(plan.device.value, 0) if plan.device.value == "cuda" else torch.device(plan.device.value)
        offload(pipeline, _modes(pipeline, plan), device, plan.settings.of(OffloadOptions).pin_cpu_memory)


def _modes(pipeline: Any, plan: ExecutionPlan) -> dict[str, str]:
    modules = {name for name, module in pipeline.components.items() if isinstance(module, torch.nn.Module)}
    return {name: _residency(plan, name) for name in modules}


def _residency(plan: ExecutionPlan, name: str) -> str:
    return plan.components[name].residency.value if name in plan.components else "resident"


def offload(pipeline: Any, modes: Mapping[str, str], device: torch.device, pin: bool) -> None:
    """Place each module by its mode.

    ``component-offload`` moves a whole component to the device for its call; ``layerwise-offload`` streams its layers,
    on CUDA in a stream of its own while the layer before computes. The hooks of accelerate and diffusers do it; what is
    ours is that each component has its own mode, where ``enable_model_cpu_offload`` knows all or nothing.
    """
    from accelerate import cpu_offload_with_hook
    from diffusers.hooks import apply_group_offloading

    hooks: list[Any] = []
    previous = None
    sequence = (getattr(pipeline, "model_cpu_offload_seq", None) or "").split("->")
    for name in sorted(modes, key=lambda name: sequence.index(name) if name in sequence else len(sequence)):
        module = pipeline.components[name]
        if modes[name] == "layerwise-offload":
            is_cuda = device.type == "cuda"
            apply_group_offloading(
                module,
                onload_device=device,
                offload_type="leaf_level",
                use_stream=is_cuda,
                non_blocking=pin,
                low_cpu_mem_usage=is_cuda and not pin,
            )
        elif modes[name] == "component-offload":
            _, hook = cpu_offload_with_hook(module, device, prev_module_hook=previous if name in sequence else None)
            previous = hook if name in sequence else previous
            hooks.append(hook)
        else:
            module.to(device)
    if hooks:
        _keep_hooks(pipeline, hooks, [name for name, mode in modes.items() if mode != "component-offload"])


def _keep_hooks(pipeline: Any, hooks: list[Any], others: list[str]) -> None:
    """Make the pipeline find its device and empty it after a call as ours is placed, not as all-or-nothing."""

    def free() -> None:
        for hook in hooks:
            hook.offload()

    pipeline._exclude_from_cpu_offload = others  # where diffusers looks for its execution device
    pipeline.maybe_free_model_hooks = free


def share_places(pipeline: Any, relative: Any) -> None:
    """Make another pipeline on the same components find its device and empty it as the first one does."""
    for name in ("_exclude_from_cpu_offload", "maybe_free_model_hooks"):
        if name in vars(pipeline):
            setattr(relative, name, vars(pipeline)[name])
