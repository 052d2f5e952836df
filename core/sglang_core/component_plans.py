"""How each component of a model is loaded: its precision and where it lives."""

from collections.abc import Iterable, Mapping

from .devices import default_precision
from .errors import ConfigError
from .memory_plans import loaded_bytes
from .models import ComponentDescription, ModelDescription
from .options import Settings
from .options.host import ExecutionOptions, OffloadOptions
from .planning_types import Choice, ComponentPlan
from .registry import unknown_name

#: Groups of components by the beginning of their names, from the most to the least particular.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "dit": ("transformer", "unet", "prior", "connectors"),
    "text_encoder": ("text_encoder",),
    "image_encoder": ("image_encoder",),
    "vae": ("vae", "audio_vae", "vqvae", "vocoder"),
}
_RESIDENT = "resident"


def group_of(component: str) -> str | None:
    """Return the group of a component (``dit``, ``text_encoder``, ``image_encoder``, ``vae``), if it is in one."""
    for group, prefixes in GROUPS.items():
        if component.startswith(prefixes):
            return group
    return None


def plan_components(model: ModelDescription, settings: Settings, device: str) -> dict[str, ComponentPlan]:
    """Decide precision and residency of each component.

    :raises ConfigError: if a setting names a component that the model does not have.
    """
    _refuse_unknown_components(model, settings)
    text_encoders = sorted(name for name in model.components if group_of(name) == "text_encoder")
    plans = {}
    for name, component in model.components.items():
        precision = _precision(component, settings, device, text_encoders)
        residency = _residency(component, settings, device)
        plans[name] = ComponentPlan(
            name=name,
            library=component.library,
            class_name=component.class_name,
            precision=precision,
            residency=residency,
            num_bytes=loaded_bytes(component, precision.value),
        )
    return plans


def _precision(
    component: ComponentDescription, settings: Settings, device: str, text_encoders: list[str]
) -> Choice[str | None]:
    options = settings.of(ExecutionOptions)
    if not component.weights:
        return Choice(value=None, reason="it has no weights", is_automatic=True)
    if component.name in options.component_precisions:
        return _given(options.component_precisions[component.name], settings, "component_precisions")
    group = group_of(component.name)
    if group == "text_encoder" and options.text_encoder_precisions:
        given = options.text_encoder_precisions
        index = text_encoders.index(component.name) if len(given) > 1 else 0
        if index < len(given):
            return _given(given[index], settings, "text_encoder_precisions")
    named = {
        "dit": ("dit_precision", options.dit_precision),
        "vae": ("vae_precision", options.vae_precision),
        "image_encoder": ("image_encoder_precision", options.image_encoder_precision),
    }
    for name, value in (named.get(group or "", ("", None)), ("precision", options.precision)):
        if value is not None:
            return _given(value, settings, name)
    return default_precision(device, component.dtype or "fp32", is_vae=group == "vae")


def _given(value: str, settings: Settings, name: str) -> Choice[str | None]:
    return Choice(value=value, reason=settings.origin(name).label, is_automatic=False)


def _residency(component: ComponentDescription, settings: Settings, device: str) -> Choice[str]:
    if not component.weights:
        return Choice(value=_RESIDENT, reason="it has no weights", is_automatic=True)
    wanted = _wanted_residency(component.name, settings)
    if wanted is None:
        return Choice(value=_RESIDENT, reason="nothing asks for offload", is_automatic=True)
    if device == "cpu" and wanted.value != _RESIDENT:
        reason = f"{wanted.reason} has no effect: the device is the host itself"
        return Choice(value=_RESIDENT, reason=reason, is_automatic=True)
    return wanted


def _wanted_residency(name: str, settings: Settings) -> Choice[str] | None:
    """Return what the user asked for: the exact map first, then the lists, then the flags of each group."""
    options, group = settings.of(OffloadOptions), group_of(name)
    for key in (name, group, "all"):
        if key is not None and key in options.component_residency:
            return Choice(
                value=options.component_residency[key],
                reason=settings.origin("component_residency").label,
                is_automatic=False,
            )
    for mode, listed, flag in (
        ("layerwise-offload", options.layerwise_offload_components, "--layerwise-offload-components"),
        ("component-offload", options.cpu_offload_components, "--cpu-offload-components"),
    ):
        if not {name, group, "all"}.isdisjoint(listed):
            return Choice(value=mode, reason=flag, is_automatic=False)
    flags = {
        "dit": (
            ("layerwise-offload", options.dit_layerwise_offload, "--dit-layerwise-offload"),
            ("component-offload", options.dit_cpu_offload, "--dit-cpu-offload"),
        ),
        "text_encoder": (("component-offload", options.text_encoder_cpu_offload, "--text-encoder-cpu-offload"),),
        "image_encoder": (("component-offload", options.image_encoder_cpu_offload, "--image-encoder-cpu-offload"),),
        "vae": (("component-offload", options.vae_cpu_offload, "--vae-cpu-offload"),),
    }
    for mode, value, flag in flags.get(group or "", ()):
        if value:
            return Choice(value=mode, reason=flag, is_automatic=False)
    return None


def residency_warnings(plans: Iterable[ComponentPlan]) -> list[str]:
    """Return one warning for each offload request that has no effect, and what it says."""
    return sorted({plan.residency.reason for plan in plans if "has no effect" in plan.residency.reason})


def unused_setting_warnings(model: ModelDescription, settings: Settings) -> list[str]:
    """Return one warning for each setting of a group of components that this model does not have."""
    with_weights = {group_of(name) for name, component in model.components.items() if component.weights}
    asked = {
        "dit": ("dit_precision", "dit_cpu_offload", "dit_layerwise_offload"),
        "text_encoder": ("text_encoder_precisions", "text_encoder_cpu_offload"),
        "image_encoder": ("image_encoder_precision", "image_encoder_cpu_offload"),
        "vae": ("vae_precision", "vae_cpu_offload"),
    }
    missing = {name: group for group, names in asked.items() if group not in with_weights for name in names}
    return [
        f"{settings.origin(field.name).label} has no effect: this model has no {missing[field.name]} with weights"
        for _, field, value in settings.fields()
        if field.name in missing and value
    ]


def _refuse_unknown_components(model: ModelDescription, settings: Settings) -> None:
    offload, execution = settings.of(OffloadOptions), settings.of(ExecutionOptions)
    groups = {*GROUPS, "all"}
    named = {
        "component_precisions": (execution.component_precisions, set()),
        "component_residency": (offload.component_residency, groups),
        "cpu_offload_components": (offload.cpu_offload_components, groups),
        "layerwise_offload_components": (offload.layerwise_offload_components, groups),
    }
    for setting, (names, further) in named.items():
        for name in names:
            if name not in model.components and name not in further:
                problem, remedy = unknown_name(f"component of {model.reference}", name, {*model.components, *further})
                raise ConfigError(f"{settings.origin(setting).label}: {problem}", remedy)
    for name in execution.component_precisions:
        if not model.components[name].weights:
            label = settings.origin("component_precisions").label
            raise ConfigError(f"{label}: the component {name} has no weights, so no precision", f"leave {name} out")
    num_encoders = sum(group_of(name) == "text_encoder" for name in model.components)
    num_given = len(execution.text_encoder_precisions)
    if num_given > max(num_encoders, 1):
        label = settings.origin("text_encoder_precisions").label
        raise ConfigError(
            f"{label}: {num_given} precisions for {num_encoders} text encoder(s)", f"give one, or {num_encoders}"
        )
