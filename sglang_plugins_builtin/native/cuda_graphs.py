"""``--enable-cuda-graphs``: steps of one shape are recorded once and then started as a whole. Without torch."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from sglang_core import Availability, UnavailableError

from .config import CudaGraphOptions

if TYPE_CHECKING:
    from sglang_core import ExecutionPlan, LoadedPipeline

#: Kernels of torch that neither wait for the device nor ask it anything. Of others it is not known.
_RECORDABLE = ("torch_sdpa", "torch_cudnn_sdpa", "reference")


class CudaGraphs:
    """Lets the denoisers of a staged pipeline be recorded, run by run: what changes between runs is never replayed."""

    name = "cuda-graphs"
    order = 950  # after all that changes or replaces parts of the denoiser

    def probe(self) -> Availability:
        """Say whether torch is there."""
        if importlib.util.find_spec("torch") is None:
            return Availability.no("torch is not installed", 'pip install "sglang-plugins[native]"')
        return Availability.yes()

    def wanted(self, plan: ExecutionPlan) -> str | None:
        """Return the setting that asks for it.

        :raises UnavailableError: if a step of this plan can not be recorded.
        """
        if not plan.settings.of(CudaGraphOptions).enable_cuda_graphs:
            return None
        label = plan.settings.origin("enable_cuda_graphs").label
        obstacle = _obstacle(plan)
        if obstacle is not None:
            problem, remedy = obstacle
            raise UnavailableError(f"{label} does not apply: {problem}", f"{remedy}, or leave it out")
        return f"{label}: from its third step on a run starts each as a whole"

    def apply(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Wrap the denoising stage.

        :raises UnavailableError: if the pipeline has none that can be recorded.
        """
        from .engine.graphs import record_denoising  # torch is here by now

        label = plan.settings.origin("enable_cuda_graphs").label
        if not record_denoising(pipeline):
            problem = (
                f"{label} does not apply: the family of {plan.model.reference} does not say what changes in a step"
            )
            raise UnavailableError(problem, "leave it out")


def _obstacle(plan: ExecutionPlan) -> tuple[str, str] | None:
    """Return why steps can not be recorded, and what would let them; ``None`` if they can."""
    if plan.backend.value != "sglang":
        return f"backend {plan.backend.value} does not record steps", "use --backend sglang"
    if plan.device.value.partition(":")[0] != "cuda":
        return f"{plan.device.value} has no CUDA graphs", "use --device cuda"
    for name, component in plan.components.items():
        if name.startswith("transformer") and component.residency.value != "resident":
            problem = f"{name} has {component.residency.value}, so its weights are never twice in the same place"
            return problem, f"use --component-residency {name}=resident"
    chosen = [plan.attention, *(each for name, each in plan.component_attention.items() if name[:11] == "transformer")]
    for choice in chosen:
        if choice.value not in _RECORDABLE:
            problem = f"it is not known whether attention backend {choice.value} can be recorded"
            return problem, f"use --attention-backend {_RECORDABLE[0]}"
    for _, field, value in plan.settings.fields():
        if field.name == "enable_torch_compile" and value:
            return "what is compiled can not be recorded", "leave --enable-torch-compile out"
    return None
