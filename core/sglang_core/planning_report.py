"""A plan as people and programs read it."""

from collections.abc import Iterator
from typing import Any

from .options.convert import to_plain
from .planning_types import Choice, ExecutionPlan

_MIB = 2**20


def plan_to_json(plan: ExecutionPlan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    model, memory = plan.model, plan.memory
    return {
        "model": {
            "reference": model.reference,
            "resolver": model.resolver,
            "revision": model.revision,
            "pipeline": model.pipeline_class,
            "kind": plan.kind,
            "weights_bytes": model.num_bytes,
        },
        "backend": _choice(plan.backend),
        "device": _choice(plan.device),
        "attention": _choice(plan.attention),
        "component_attention": {key: _choice(choice) for key, choice in plan.component_attention.items()},
        "lossy_attention": list(plan.lossy_attention),
        "components": {
            name: {
                "class": component.class_name,
                "library": component.library,
                "precision": _choice(component.precision),
                "residency": _choice(component.residency),
                "parameters": model.components[name].num_parameters,
                "bytes": component.num_bytes,
            }
            for name, component in plan.components.items()
        },
        "transforms": [_choice(choice) for choice in plan.transforms],
        "requests": [request.to_json() for request in plan.requests],
        "request_reasons": dict(plan.request_reasons),
        "output": {
            "directory": plan.output.directory,
            "files": list(plan.output.file_names),
            "encoder": _choice(plan.output.encoder),
            "compression": plan.output.compression,
            "notes": list(plan.output.notes),
        },
        "memory": {
            "weights_bytes": memory.weights_bytes,
            "device_weights_bytes": memory.device_weights_bytes,
            "activations_bytes": memory.activations_bytes,
            "device_peak_bytes": memory.device_peak_bytes,
            "available_bytes": memory.available_bytes,
            "peak_stage": memory.peak_stage,
            "stage_peak_bytes": dict(memory.stage_peak_bytes),
        },
        "settings": plan.settings.to_json(),
        "warnings": list(plan.warnings),
        "versions": dict(plan.versions),
    }


def _choice(choice: Choice[Any]) -> dict[str, Any]:
    return {"value": to_plain(choice.value), "reason": choice.reason, "automatic": choice.is_automatic}


def plan_lines(plan: ExecutionPlan) -> Iterator[str]:
    """Yield the plan as lines of text: each value with its reason."""
    model = plan.model
    revision = f" at {model.revision}" if model.revision else ""
    yield f"model       {model.reference}{revision} ({model.pipeline_class}, found by {model.resolver})"
    yield f"backend     {_text(plan.backend)}"
    yield f"device      {_text(plan.device)}"
    yield from _attention_lines(plan)
    yield "components"
    for name, component in plan.components.items():
        if component.precision.value is None:
            yield f"  {name:<16} {component.class_name}"
            continue
        size = f"{component.num_bytes / _MIB:,.1f} MiB"
        yield f"  {name:<16} {component.class_name}, {size}"
        yield f"  {'':<16}   {_text(component.precision)}"
        yield f"  {'':<16}   {_text(component.residency)}"
    for choice in plan.transforms:
        yield f"transform   {_text(choice)}"
    yield from _request_lines(plan)
    yield from _output_lines(plan)
    yield from _memory_lines(plan)
    for warning in plan.warnings:
        yield f"warning     {warning}"


def _text(choice: Choice[Any]) -> str:
    return f"{choice.value}  ({'automatic: ' if choice.is_automatic else ''}{choice.reason})"


def _attention_lines(plan: ExecutionPlan) -> Iterator[str]:
    """Yield the main choice, and those of components and roles; a reason that repeats the main one is left out."""
    yield f"attention   {_text(plan.attention)}"
    for key, choice in plan.component_attention.items():
        yield f"  {key:<16} {choice.value if choice.reason == plan.attention.reason else _text(choice)}"


def _request_lines(plan: ExecutionPlan) -> Iterator[str]:
    first = plan.requests[0]
    yield "request" if len(plan.requests) == 1 else f"request (the first of {len(plan.requests)})"
    for name, value in first.to_json().items():
        reason = plan.request_reasons.get(name)
        yield f"  {name:<20} {value!r}" + (f"  ({reason})" if reason else "")


def _output_lines(plan: ExecutionPlan) -> Iterator[str]:
    if not plan.output.paths:
        yield f"output      nothing is saved  ({plan.output.encoder.reason})"
        return
    yield f"output      {', '.join(str(path) for path in plan.output.paths)}"
    yield f"encoder     {_text(plan.output.encoder)}"
    for note in plan.output.notes:
        yield f"note        {note}"


def _memory_lines(plan: ExecutionPlan) -> Iterator[str]:
    memory = plan.memory
    parts = (
        f"in {memory.peak_stage}: weights {memory.device_weights_bytes / _MIB:,.0f} MiB"
        f" + working {memory.activations_bytes / _MIB:,.0f} MiB"
    )
    free = f", {memory.available_bytes / _MIB:,.0f} MiB free" if memory.available_bytes is not None else ""
    yield f"memory      about {memory.device_peak_bytes / _MIB:,.0f} MiB on {plan.device.value} ({parts}){free}"
