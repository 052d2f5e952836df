"""The native backend as the host sees it while planning: light, nothing of torch is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from sglang_core import AttentionOptions, Availability, ExecutionOptions, OffloadOptions, SamplingOptions

if TYPE_CHECKING:
    from sglang_core import (
        AttentionPlan,
        CallDescription,
        ExecutionPlan,
        LoadedPipeline,
        MemoryQuery,
        ModelDescription,
        ModelFamily,
        PluginManager,
        RunMemory,
        Settings,
        StepControl,
    )

_NEEDED = ("torch", "safetensors", "tokenizers")
_INSTALL = 'pip install "sglang-plugins[native]"'


class NativeBackend:
    """Runs the model families it knows with stages and transformer modules of its own."""

    name = "sglang"
    aliases = ("native",)
    order = 50

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    @property
    def honours(self) -> Collection[str]:
        """Return every setting of device, precision, attention and offload."""
        groups = (ExecutionOptions, OffloadOptions, AttentionOptions)
        return tuple(field.name for group in groups for field in attrs.fields(group))

    def probe(self) -> Availability:
        """Say whether the packages are installed."""
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return Availability.no(f"{', '.join(missing)} not installed", _INSTALL)
        return Availability.yes()

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether a family runs this pipeline class with these settings."""
        family = self._family_of(model)
        if family is None:
            known = sorted({name for known in self._manager.model_families for name in known.pipeline_classes})
            return Availability.no(
                f"no model family runs {model.pipeline_class} (known: {', '.join(known) or 'none'})",
                "use --backend diffusers, or install a package that brings the family",
            )
        if model.custom_code or isinstance(model.index.get("_class_name"), list):
            return Availability.no(
                f"{model.reference} brings code of its own", "use --backend diffusers --trust-remote-code"
            )
        for name in ("diffusers_kwargs", "diffusers_attention_backend"):
            if name in _field_names(settings) and settings.is_given(name):
                label = settings.origin(name).label
                return Availability.no(f"{label} is for pipelines of diffusers", "use --backend diffusers")
        answer = family.supports(model, settings)
        return answer if not answer.is_available else _takes_inputs(family.describe_call(model), model, settings)

    def choose_attention(
        self, model: ModelDescription, settings: Settings, device: str, precisions: Mapping[str, str | None]
    ) -> AttentionPlan:
        """Choose among the attention backends for what the family's components need."""
        from sglang_core import plan_attention  # only where something is planned

        needs = self._family(model).attention_needs(model)
        return plan_attention(self._manager, needs, model, settings, device, precisions)

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what the family takes."""
        return self._family(model).describe_call(model)

    def estimate_memory(self, query: MemoryQuery) -> RunMemory | None:
        """Return what a run takes by the family's estimate; ``None`` where it has none."""
        from sglang_core import EstimatesMemory  # only where something is planned

        family = self._family(query.model)
        return family.estimate_memory(query) if isinstance(family, EstimatesMemory) else None

    def load(self, plan: ExecutionPlan, folder: Path, control: StepControl) -> LoadedPipeline:
        """Import what runs the model (stage ``import``), then let the family read its weights.

        :raises ModelLoadError: if the files cannot be used.
        :raises OutOfDeviceMemoryError: if the device does not hold them.
        """
        from sglang_core import attention_of, memory_query, run_memory

        with control.stage("import"):
            import torch  # noqa: F401  # seconds, so only here, and in a stage of its own
        find = attention_of(self._manager, plan)
        pipeline = self._family(plan.model).load(plan, folder, control, find)
        from .engine import StagedPipeline  # torch is here by now

        if isinstance(pipeline, StagedPipeline):
            pipeline.memory_of = lambda request: run_memory(self, memory_query(plan, request))
        return pipeline

    def _family_of(self, model: ModelDescription) -> ModelFamily | None:
        families = self._manager.model_families
        return families.get(model.pipeline_class) if model.pipeline_class in families else None

    def _family(self, model: ModelDescription) -> ModelFamily:
        return self._manager.model_families.get(model.pipeline_class)


def _takes_inputs(call: CallDescription, model: ModelDescription, settings: Settings) -> Availability:
    """Say whether a family takes the image and the mask of the settings, if they have any."""
    if "image_path" not in _field_names(settings):
        return Availability.yes()
    inputs = settings.of(SamplingOptions)
    if inputs.mask_path is not None and call.for_inputs(image=True, mask=True) is None:
        return Availability.no(f"its family does not inpaint with {model.pipeline_class}", "use --backend diffusers")
    if inputs.image_path and call.for_inputs(image=True, mask=False) is None:
        problem = f"its family starts {model.pipeline_class} from no image"
        return Availability.no(problem, "use --backend diffusers, or leave --image-path out")
    return Availability.yes()


def _field_names(settings: Settings) -> set[str]:
    return {field.name for _, field, _ in settings.fields()}
