"""From what torch, diffusers, transformers and safetensors raise to one sentence and a remedy."""

import re
from typing import Any

from sglang_core import (
    DEBUG_HINT,
    ExecutionPlan,
    GenerationRequest,
    ModelLoadError,
    OutOfDeviceMemoryError,
    RequestError,
    SglangError,
    is_out_of_memory,
    out_of_memory_error,
    run_remedy,
    saving_flags,
    size_text,
)

_LONGEST_REASON = 300


def out_of_memory(
    error: BaseException, plan: ExecutionPlan, doing: str, request: GenerationRequest | None = None
) -> OutOfDeviceMemoryError:
    """Say what did not fit, how much more was asked for, and what would need less."""
    device = plan.device.value
    if request is None:
        saving = saving_flags(plan.components, plan.settings, device)
        remedy = f"save memory with {', '.join(saving)}" if saving else "use a device with more memory"
    else:
        remedy = run_remedy(plan, request, memory_of=None, capacity_bytes=None)
    return out_of_memory_error(error, device, doing, remedy)


def load_failure(error: Exception, plan: ExecutionPlan, what: str) -> SglangError:
    """Say why a component or the pipeline could not be loaded."""
    if is_out_of_memory(error):
        return out_of_memory(error, plan, f"{what} of {plan.model.reference}")
    missing = error if isinstance(error, ModuleNotFoundError | ImportError) else None
    remedy = "install what is missing" if missing else "download the model again; its files are damaged or do not fit"
    return ModelLoadError(f"{what} of {plan.model.reference} can not be loaded: {reason_of(error)}", remedy)


def run_failure(error: Exception, plan: ExecutionPlan, request: GenerationRequest) -> SglangError:
    """Say why a call failed."""
    if is_out_of_memory(error):
        return out_of_memory(error, plan, size_text(request), request)
    precision = plan.components[next(iter(plan.components))].precision.value if plan.components else None
    text = reason_of(error)
    remedy = "change the argument it names"
    if isinstance(error, RuntimeError) and re.search(r"dtype|Half|BFloat16|not implemented for", text):
        remedy = f"use another precision than {precision}, for example --precision fp32"
    elif not isinstance(error, ValueError | TypeError):
        remedy = f"use other values, or {DEBUG_HINT}"
    return RequestError(f"{plan.model.pipeline_class} failed: {text}", remedy)


def incomplete_weights(plan: ExecutionPlan, name: str, details: dict[str, Any]) -> ModelLoadError | None:
    """Say which weights of a component are missing or of the wrong shape; ``None`` if all are there."""
    missing = sorted(key for key in details.get("missing_keys") or () if not str(key).endswith("position_ids"))
    mismatched = sorted(
        str(entry[0] if isinstance(entry, tuple | list) else entry) for entry in details.get("mismatched_keys") or ()
    )
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights are missing (the first is {missing[0]})")
    if mismatched:
        problems.append(f"{len(mismatched)} weights have the wrong shape (the first is {mismatched[0]})")
    if not problems:
        return None
    return ModelLoadError(
        f"{name} of {plan.model.reference} can not be loaded: {' and '.join(problems)}",
        "download the model again; the weights do not fit its configuration",
    )


def reason_of(error: BaseException) -> str:
    """Return the first sentence of a foreign message, with the kind of error where that says more."""
    text = " ".join(str(error).split())
    if not text or isinstance(error, KeyError | AttributeError | IndexError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
