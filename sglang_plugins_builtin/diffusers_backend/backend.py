"""The backend as the host sees it while planning: light, nothing of torch or diffusers is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from sglang_core import (
    Availability,
    CallOptions,
    ExecutionOptions,
    ModelLoadError,
    ModelOptions,
    OffloadOptions,
    UnavailableError,
)

from .config import DiffusersOptions

if TYPE_CHECKING:
    from sglang_core import (
        AttentionPlan,
        CallDescription,
        ExecutionPlan,
        LoadedPipeline,
        ModelDescription,
        Settings,
        StepControl,
    )

_NEEDED = ("torch", "diffusers", "transformers", "accelerate")
_INSTALL = 'pip install "sglang-plugins[diffusers]"'
_TRUST = "read that code, then allow it with --trust-remote-code"


class DiffusersBackend:
    """Runs pipelines of diffusers, and those that a repo brings with it."""

    name = "diffusers"
    order = 100

    @property
    def honours(self) -> Collection[str]:
        """Return every setting of device, precision, offload and call, the choice of attention, and its own."""
        groups = (ExecutionOptions, OffloadOptions, CallOptions, DiffusersOptions)
        names = (field.name for group in groups for field in attrs.fields(group))
        return (*names, "attention_backend", "component_attention_backends")

    def probe(self) -> Availability:
        """Say whether the packages are installed."""
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return Availability.no(f"{', '.join(missing)} not installed", _INSTALL)
        return Availability.yes()

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether the pipeline class is known, its code trusted, and what it and its attention need there."""
        from . import attention, calls, processors  # what reads sources: only where something is planned

        is_trusted = settings.of(ModelOptions).trust_remote_code
        if calls.uses_custom_pipeline(model) and not is_trusted:
            return Availability.no(f"{model.reference} brings its own pipeline code ({model.pipeline_class})", _TRUST)
        foreign = _foreign_components(model)
        if foreign and not is_trusted:
            return Availability.no(f"{model.reference} brings its own code for {', '.join(foreign)}", _TRUST)
        code = calls.pipeline_code(model)
        if code is None:
            return Availability.no(*_unknown_class(model))
        if not calls.makes_media(code):
            made = ", ".join(sorted(code.results))
            return Availability.no(
                f"{model.pipeline_class} makes neither pictures nor clips (it returns {made})",
                "choose a text-to-image or text-to-video model",
            )
        can_prepare = processors.probe_processors(model)
        if not can_prepare.is_available:
            return can_prepare
        try:
            wanted = attention.attention_setting(settings)
        except UnavailableError as error:
            return Availability.no(error.problem, error.remedy)
        return Availability.yes() if wanted is None else attention.probe_attention(wanted[0], is_trusted)

    def choose_attention(
        self, model: ModelDescription, settings: Settings, device: str, precisions: Mapping[str, str | None]
    ) -> AttentionPlan:
        """Return what the settings ask for, in the words of diffusers, or what diffusers takes by itself."""
        from .attention import plan_diffusers_attention  # as above

        return plan_diffusers_attention(model, settings, device)

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what the pipeline's call takes, from its source.

        :raises ModelLoadError: if neither diffusers nor the repo has the pipeline class.
        """
        from . import calls  # as above

        code = calls.pipeline_code(model)
        if code is None:
            raise ModelLoadError(*_unknown_class(model))
        return calls.describe(model, code)

    def load(self, plan: ExecutionPlan, folder: Path, control: StepControl) -> LoadedPipeline:
        """Import what runs the model (stage ``import``), then read its weights: each component a step of ``load``.

        :raises ModelLoadError: if the files cannot be used.
        :raises OutOfDeviceMemoryError: if the device does not hold them.
        """
        from .startup import collection_paused

        with control.stage("import"), collection_paused():
            from .loading import import_pipeline_class, load_pipeline  # torch and diffusers: seconds, so only here

            import_pipeline_class(plan)
        return load_pipeline(plan, folder, control)


def _foreign_components(model: ModelDescription) -> list[str]:
    """Return the components whose classes are Python files of the repo."""
    folders = {path.split("/")[0] for path in model.custom_code if "/" in path}
    return sorted(folders & set(model.components))


def _unknown_class(model: ModelDescription) -> tuple[str, str]:
    from .calls import uses_custom_pipeline  # as above

    if uses_custom_pipeline(model):
        return (
            f"the Python file of {model.reference} has no class {model.pipeline_class} with a __call__",
            "correct _class_name in its model_index.json",
        )
    return (
        f"the installed diffusers has no pipeline class {model.pipeline_class!r}",
        "pip install --upgrade diffusers; if the repo brings the class in a pipeline.py, add --trust-remote-code",
    )
