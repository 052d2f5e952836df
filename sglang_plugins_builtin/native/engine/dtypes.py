"""Precisions of a plan as torch dtypes."""

import torch

from sglang_core import ExecutionPlan

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def dtype_of(plan: ExecutionPlan, component: str) -> torch.dtype:
    """Return the dtype the plan gives a component."""
    return DTYPES[plan.components[component].precision.value or "fp32"]
