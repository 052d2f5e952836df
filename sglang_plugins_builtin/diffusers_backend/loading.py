"""Reads a pipeline folder, component by component. Heavy: torch, transformers and diffusers are imported here."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models import attention_dispatch

from sglang_core import (
    Choice,
    ComponentDescription,
    ExecutionOptions,
    ExecutionPlan,
    ModelOptions,
    SglangError,
    StepControl,
    UnavailableError,
    is_out_of_memory,
)

from .attention import ENVIRONMENT_VARIABLE
from .calls import uses_custom_pipeline
from .corrections import correct_calls
from .failures import incomplete_weights, load_failure
from .pipeline import DiffusersPipeline
from .residency import move_if_resident, place
from .startup import collection_paused

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_WITH_ATTENTION = ("transformer", "unet", "prior", "controlnet")


def load_pipeline(plan: ExecutionPlan, folder: Path, control: StepControl) -> DiffusersPipeline:
    """Load a pipeline as the plan says; each component is a step of the stage ``load``.

    :raises ModelLoadError: if the files cannot be used.
    :raises OutOfDeviceMemoryError: if the device does not hold them.
    :raises UnavailableError: if a setting does not apply to these components.
    """
    total = len(plan.components)
    with control.stage("load", total, "component"), collection_paused(), _quiet_libraries():
        components = {}
        for index, (name, description) in enumerate(plan.model.components.items(), start=1):
            component = _guarded(plan, name, _load_component, description, plan, folder)
            if component is not None:
                move_if_resident(component, plan, name)
                components[name] = component
            control.step("load", index, total, "component")
        pipeline = _guarded(plan, "the pipeline", _assemble, plan, folder, components)
        correct_calls(pipeline)
        _guarded(plan, "the pipeline", place, pipeline, plan)
        _apply_settings(pipeline, plan)
    return DiffusersPipeline(pipeline, plan)


def import_pipeline_class(plan: ExecutionPlan) -> None:
    """Import the class before its components: its module imports what they are made of."""
    if not uses_custom_pipeline(plan.model):
        _guarded(plan, plan.model.pipeline_class, getattr, diffusers, plan.model.pipeline_class)


def _guarded(plan: ExecutionPlan, what: str, load: Callable[..., Any], *arguments: Any) -> Any:
    """Call foreign code: it raises whatever it likes, the user reads one sentence."""
    try:
        return load(*arguments)
    except SglangError:
        raise
    except Exception as error:  # foreign code
        raise load_failure(error, plan, what) from error


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep bars and remarks of diffusers and transformers off the terminal while loading.

    The host shows its own progress, and what matters to a user (missing weights, wrong shapes) is an error here. What
    they say about themselves can be seen with ``TRANSFORMERS_VERBOSITY`` and ``DIFFUSERS_VERBOSITY``.
    """
    libraries = {"DIFFUSERS_VERBOSITY": diffusers.utils.logging, "TRANSFORMERS_VERBOSITY": transformers.utils.logging}
    with ExitStack() as restored:
        for variable, library in libraries.items():
            if library.is_progress_bar_enabled():
                library.disable_progress_bar()
                restored.callback(library.enable_progress_bar)
            if variable not in os.environ:
                restored.callback(library.set_verbosity, library.get_verbosity())
                library.set_verbosity_error()
        yield


def _load_component(description: ComponentDescription, plan: ExecutionPlan, folder: Path) -> Any:
    """Load one component from its folder, or return ``None`` where only diffusers knows how."""
    library = {"diffusers": diffusers, "transformers": transformers}.get(description.library)
    component_class = getattr(library, description.class_name, None) if library else None
    place_of = folder / description.name
    if not isinstance(component_class, type) or not place_of.is_dir():
        return None
    if issubclass(component_class, torch.nn.Module):
        return _load_model(component_class, description, plan, place_of)
    # Asking for the base classes instead (ProcessorMixin, ...) would import what most models have no use for.
    is_known = description.library == "transformers" or description.class_name.endswith("Scheduler")
    if is_known and hasattr(component_class, "from_pretrained"):
        return component_class.from_pretrained(place_of, local_files_only=True)
    return None


def _load_model(model_class: Any, description: ComponentDescription, plan: ExecutionPlan, place_of: Path) -> Any:
    """Load a model in its precision, each weight straight into its place: there is no second copy.

    Pickled weights are read by both libraries with ``weights_only``, so no code in them runs.
    """
    dtype = _DTYPES[plan.components[description.name].precision.value or "fp32"]
    arguments: dict[str, Any] = {"dtype": dtype}
    if description.library == "diffusers":
        arguments = {"torch_dtype": dtype, "low_cpu_mem_usage": True}
    variant = _variant(description)
    if variant is not None:
        arguments["variant"] = variant
    model, details = model_class.from_pretrained(place_of, local_files_only=True, output_loading_info=True, **arguments)
    problem = incomplete_weights(plan, description.name, details)
    if problem is not None:
        raise problem
    return model.eval()


def _variant(description: ComponentDescription) -> str | None:
    """Return ``fp16`` if the component has only ``model.fp16.safetensors``."""
    names = [Path(file.path).name for file in description.weights]
    parts = names[0].split(".") if names else []
    return parts[1].split("-")[0] if len(parts) > 2 else None


def _assemble(plan: ExecutionPlan, folder: Path, components: dict[str, Any]) -> Any:
    """Build the pipeline. What is not in ``components`` diffusers loads itself."""
    is_trusted = plan.settings.of(ModelOptions).trust_remote_code
    precisions = {name: component.precision.value for name, component in plan.components.items()}
    dtypes = {name: _DTYPES[value] for name, value in precisions.items() if value and name not in components}
    arguments: dict[str, Any] = {"local_files_only": True, **components}
    if dtypes:
        arguments["torch_dtype"] = {"default": torch.float32, **dtypes}
    if not uses_custom_pipeline(plan.model):
        pipeline_class = getattr(diffusers, plan.model.pipeline_class)
        return pipeline_class.from_pretrained(folder, trust_remote_code=is_trusted, **arguments)
    if isinstance(plan.model.index.get("_class_name"), str):
        arguments["custom_pipeline"] = str(folder)
    return diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=is_trusted, **arguments)


def _apply_settings(pipeline: Any, plan: ExecutionPlan) -> None:
    execution = plan.settings.of(ExecutionOptions)
    _switch_vae(pipeline, plan, "vae_tiling", "tiling", execution.vae_tiling)
    _switch_vae(pipeline, plan, "vae_slicing", "slicing", execution.vae_slicing)
    _set_attention(pipeline, plan)


def _switch_vae(pipeline: Any, plan: ExecutionPlan, setting: str, word: str, wanted: bool | None) -> None:
    if wanted is None:
        return
    vae = pipeline.components.get("vae")
    switch = getattr(vae, f"{'enable' if wanted else 'disable'}_{word}", None)
    try:
        if switch is None:
            raise NotImplementedError(setting)
        switch()
    except NotImplementedError as error:
        what = f"its VAE {type(vae).__name__} has none" if vae is not None else "it has no VAE"
        label = plan.settings.origin(setting).label
        raise UnavailableError(f"{label} does not apply to {plan.model.reference}: {what}", "leave it out") from error


def _set_attention(pipeline: Any, plan: ExecutionPlan) -> None:
    """Give the denoisers the attention of the plan, and single components their own."""
    chosen = dict(plan.component_attention)
    if not plan.attention.is_automatic and plan.attention.reason != ENVIRONMENT_VARIABLE:
        denoisers = [key for key, part in pipeline.components.items() if _is_denoiser(key, part)]
        if not denoisers:
            raise _no_attention(plan.attention, f"no component of {plan.model.reference}")
        chosen = {**dict.fromkeys(denoisers, plan.attention), **chosen}
    registry = attention_dispatch._AttentionBackendRegistry
    active, _ = registry.get_active_backend()
    try:
        for key, choice in chosen.items():
            _set_attention_of(pipeline.components.get(key), key, choice)
    finally:
        registry.set_active_backend(active)  # diffusers would give the last one to whatever has no choice of its own


def _is_denoiser(key: str, component: Any) -> bool:
    return key.startswith(_WITH_ATTENTION) and hasattr(component, "set_attention_backend")


def _set_attention_of(component: Any, key: str, choice: Choice[str]) -> None:
    if not hasattr(component, "set_attention_backend"):
        raise _no_attention(choice, f"nothing in {key}")
    label = choice.reason if choice.reason.endswith(choice.value) else f"{choice.reason} {choice.value}"
    try:
        component.set_attention_backend(choice.value)
    except Exception as error:  # diffusers raises RuntimeError, ValueError and ImportError here
        if is_out_of_memory(error):
            raise
        raise UnavailableError(f"{label}: {error}", "use 'native', or leave it out") from error
    # Processors of the older kind call torch themselves: there the choice would go unheard.
    heard = any(hasattr(getattr(module, "processor", None), "_attention_backend") for module in component.modules())
    if not heard and choice.value != "native":
        raise _no_attention(choice, f"nothing in {key} ({type(component).__name__})")


def _no_attention(choice: Choice[str], what: str) -> UnavailableError:
    return UnavailableError(
        f"{choice.reason} {choice.value} does not apply: {what} can change its attention", "leave it out"
    )
