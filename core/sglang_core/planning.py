"""From settings to a plan: everything is decided, and every wrong combination refused, before a weight is read."""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from attrs import evolve, fields, frozen

from .backends import CallDescription, ExecutionBackend, FollowingTransform
from .component_plans import plan_components, residency_warnings, unused_setting_warnings
from .devices import Machine, choose_device, this_machine
from .errors import ConfigError, ModelNotFoundError, UnavailableError
from .memory_plans import MemoryQuery, estimate_of, memory_query, run_memory
from .models import ModelDescription, ModelReference, ModelSource, describe_model
from .options import OptionField, Settings
from .options.host import ExecutionOptions, ModelOptions, OffloadOptions, OutputOptions, SamplingOptions
from .output_names import plan_outputs
from .planning_types import Choice, ExecutionPlan, MemoryEstimate, OutputPlan
from .plugins import PluginManager
from .registry import closest, unknown_name
from .request_planning import plan_requests
from .requests import GenerationRequest, MediaKind
from .residency_plans import place_components

#: Packages whose versions can change a result.
_VERSIONED = ("sglang-plugins", "torch", "diffusers", "transformers", "numpy", "pillow", "av")


@frozen(kw_only=True)
class PlannedModel:
    """A plan and the source its files come from."""

    plan: ExecutionPlan
    source: ModelSource


def plan_run(
    manager: PluginManager, settings: Settings, *, may_lack_inputs: bool = False, machine: Machine | None = None
) -> PlannedModel:
    """Find the model and plan the run. Imports nothing heavy and reads no weights.

    :param may_lack_inputs: plan although prompt or image are not known yet.
    :param machine: to plan for; this one if not given.
    :raises SglangError: for whatever cannot work, with the nearest thing that can.
    """
    source = resolve_model(manager, settings)
    model = describe_model(source)
    plan = create_plan(manager, settings, model, may_lack_inputs=may_lack_inputs, machine=machine)
    return PlannedModel(plan=plan, source=source)


def resolve_model(manager: PluginManager, settings: Settings) -> ModelSource:
    """Ask the resolvers in their order for the model of the settings.

    :raises ModelNotFoundError: if none knows it; what each would have accepted is said.
    """
    options = settings.of(ModelOptions)
    reference = ModelReference(
        path=options.model_path, revision=options.revision, token=options.hf_token, offline=options.offline
    )
    hints = []
    for resolver in sorted(manager.model_resolvers, key=lambda resolver: resolver.order):
        availability = resolver.probe()
        if not availability.is_available:
            hints.append(f"{resolver.name}: {availability.reason} ({availability.remedy})")
            continue
        source = resolver.resolve(reference)
        if source is not None:
            if reference.revision is not None and source.revision is None:
                label = settings.origin("revision").label
                raise ConfigError(f"{label} does not apply: {options.model_path} has no revisions", "leave it out")
            return source
        hint = resolver.hint(reference)
        if hint:
            hints.append(hint)
    label = settings.origin("model_path").label
    raise ModelNotFoundError(f"{label}: no model {options.model_path!r} is found", "; or ".join(hints) or "--help")


def create_plan(
    manager: PluginManager,
    settings: Settings,
    model: ModelDescription,
    *,
    may_lack_inputs: bool = False,
    machine: Machine | None = None,
) -> ExecutionPlan:
    """Decide everything about running a described model.

    :param may_lack_inputs: plan although prompt or image are not known yet.
    :param machine: to plan for; this one if not given.
    :raises SglangError: for whatever cannot work, with the nearest thing that can.
    """
    machine = machine or this_machine()
    device = choose_device(settings.of(ExecutionOptions).device, machine)
    backend, chosen = choose_backend(manager, settings, model)
    _refuse_ignored_settings(manager, settings, backend)
    components = plan_components(model, settings, device.value)
    precisions = {name: component.precision.value for name, component in components.items()}
    call = backend.describe_call(model)
    requests, reasons = _plan_requests(manager, model, call, settings, may_lack_inputs)
    attention = backend.choose_attention(model, settings, device.value, precisions)
    query = MemoryQuery(model=model, request=requests[0], precisions=precisions, device=device.value, settings=settings)
    components, memory = place_components(
        components,
        query,
        call,
        lambda request: run_memory(backend, evolve(query, request=request)),
        machine.free_bytes(device.value),
        is_automatic="component_residency" in backend.honours and not _asks_for_offload(settings),
    )
    plan = ExecutionPlan(
        model=model,
        kind=call.kind,
        backend=chosen,
        device=device,
        attention=attention.default,
        component_attention=attention.by_role,
        lossy_attention=attention.lossy,
        components=components,
        transforms=(),
        call=call,
        requests=requests,
        request_reasons=reasons,
        output=_plan_output(manager, settings, call.kind, requests),
        memory=memory,
        settings=settings,
        warnings=(
            *residency_warnings(components.values()),
            *unused_setting_warnings(model, settings),
            *attention.warnings,
        ),
        versions=installed_versions(),
    )
    return _with_memory_warning(evolve(plan, transforms=_choose_transforms(manager, plan)))


def _plan_requests(
    manager: PluginManager, model: ModelDescription, call: CallDescription, settings: Settings, may_lack_inputs: bool
) -> tuple[tuple[GenerationRequest, ...], dict[str, str]]:
    return plan_requests(
        model,
        call,
        settings,
        may_lack_inputs=may_lack_inputs,
        other_backends=lambda image, mask: backends_that_take(manager, settings, model, image=image, mask=mask),
    )


def replan_requests(
    manager: PluginManager, plan: ExecutionPlan, settings: Settings, *, may_lack_inputs: bool = False
) -> ExecutionPlan:
    """Return the plan for other requests of the same loaded model.

    :param may_lack_inputs: plan although prompt or image are not known yet.
    """
    requests, reasons = _plan_requests(manager, plan.model, plan.call, settings, may_lack_inputs)
    output = _plan_output(manager, settings, plan.kind, requests)
    plan = evolve(plan, requests=requests, request_reasons=reasons, output=output, settings=settings)
    transforms = _choose_transforms(manager, plan, loaded=plan.transforms)
    memory = _estimated_again(manager, plan)
    if (transforms, memory) == (plan.transforms, plan.memory):  # as with most requests: a copy less
        return plan
    return evolve(plan, transforms=transforms, memory=memory)


def _plan_output(
    manager: PluginManager, settings: Settings, kind: MediaKind, requests: Sequence[GenerationRequest]
) -> OutputPlan:
    return plan_outputs(
        settings.of(OutputOptions),
        kind,
        requests,
        manager.media_encoders,
        outputs_per_prompt=settings.of(SamplingOptions).num_outputs_per_prompt,
        started=datetime.now().astimezone(),
    )


def choose_backend(
    manager: PluginManager, settings: Settings, model: ModelDescription
) -> tuple[ExecutionBackend, Choice[str]]:
    """Return the backend that runs the model, and why.

    :raises UnavailableError: if the one asked for cannot, or with ``auto`` if none can; each one's reason is told.
    """
    wanted = settings.of(ModelOptions).backend.lower()
    label = settings.origin("backend").label
    if wanted != "auto" and wanted not in manager.execution_backends:
        names = ["auto", *(backend.name for backend in manager.execution_backends)]
        problem, remedy = unknown_name("execution backend", wanted, names)
        raise ConfigError(f"{label}: {problem}", remedy)
    if wanted != "auto":
        backend = manager.execution_backends.get(wanted)
        answer = backend.probe()
        answer = backend.supports(model, settings) if answer.is_available else answer
        if not answer.is_available:
            raise UnavailableError(f"{label} {backend.name}: {answer.reason}", answer.remedy)
        return backend, Choice(value=backend.name, reason=label, is_automatic=False)
    refusals: list[tuple[str, str]] = []
    for backend in sorted(manager.execution_backends, key=lambda backend: backend.order):
        answer = backend.probe()
        answer = backend.supports(model, settings) if answer.is_available else answer
        if answer.is_available:
            skipped = "".join(f"; not {reason}" for reason, _ in refusals)
            reason = f"it runs {model.pipeline_class}{skipped}"
            return backend, Choice(value=backend.name, reason=reason, is_automatic=True)
        refusals.append((f"{backend.name}: {answer.reason}", answer.remedy))
    reasons = "; ".join(reason for reason, _ in refusals) or "none is installed"
    remedies = "; or ".join(remedy for _, remedy in refusals) or 'pip install "sglang-plugins[diffusers]"'
    raise UnavailableError(f"no execution backend can run {model.pipeline_class}: {reasons}", remedies)


def backends_that_take(
    manager: PluginManager, settings: Settings, model: ModelDescription, *, image: bool, mask: bool
) -> tuple[str, ...]:
    """Return the names of the backends that can run a model with an image, or with an image and a mask."""
    found = []
    for backend in sorted(manager.execution_backends, key=lambda backend: backend.order):
        if not backend.probe().is_available or not backend.supports(model, settings).is_available:
            continue
        if backend.describe_call(model).for_inputs(image=image, mask=mask) is not None:
            found.append(backend.name)
    return tuple(found)


def _refuse_ignored_settings(manager: PluginManager, settings: Settings, backend: ExecutionBackend) -> None:
    """Refuse a given execution setting that neither the host, the backend nor a transform acts on."""
    handled = set(backend.honours) | _settings_of_the_host() | _settings_of_transforms(manager, settings)
    for group, field, value in settings.fields():
        if group.is_execution and _is_asked(settings, field, value) and field.name not in handled:
            close = closest(field.name, backend.honours)
            remedy = f"leave it out, or use {close}" if close else "leave it out, or choose another --backend"
            raise ConfigError(
                f"{settings.origin(field.name).label} does not apply: backend {backend.name} does not honour "
                f"{field.name}",
                remedy,
            )


def _is_asked(settings: Settings, field: OptionField, value: object) -> bool:
    """Say whether somebody wants a setting to act.

    A file may hold every setting, as ``--print-config`` writes it: there a default asks for nothing. A receipt tells
    the precision of every component, also where the backend alone decides on it.
    """
    kind = settings.origin(field.name).kind
    return settings.is_given(field.name) and kind != "receipt" and (kind != "file" or value != field.default)


def _settings_of_the_host() -> set[str]:
    return {"device"}


def _settings_of_transforms(manager: PluginManager, settings: Settings) -> set[str]:
    """Return the settings in groups of the plugins that bring a transform: the transform acts on them."""
    owners = {manager.pipeline_transforms.owner(transform.name) for transform in manager.pipeline_transforms}
    return {field.name for group, field, _ in settings.fields() if manager.options.owner(group.name) in owners}


def _choose_transforms(
    manager: PluginManager, plan: ExecutionPlan, loaded: Sequence[Choice[str]] | None = None
) -> tuple[Choice[str], ...]:
    """Return the transforms of a plan.

    :param loaded: those that its model was loaded with: only such as follow each run are asked again.
    """
    chosen = []
    for transform in sorted(manager.pipeline_transforms, key=lambda transform: transform.order):
        if loaded is not None and not issubclass(type(transform), FollowingTransform):
            chosen += [choice for choice in loaded if choice.value == transform.name]
            continue
        reason = transform.wanted(plan)
        if reason is None:
            continue
        answer = transform.probe()
        if not answer.is_available:
            raise UnavailableError(f"{transform.name} ({reason}): {answer.reason}", answer.remedy)
        chosen.append(Choice(value=transform.name, reason=reason, is_automatic=False))
    return tuple(chosen)


def _asks_for_offload(settings: Settings) -> bool:
    """Say whether somebody decided where components live; then the host leaves it alone."""
    names = {field.name for field in fields(OffloadOptions)} - {"pin_cpu_memory"}
    return any(field.name in names and _is_asked(settings, field, value) for _, field, value in settings.fields())


def _estimated_again(manager: PluginManager, plan: ExecutionPlan) -> MemoryEstimate:
    """Return the estimate for the first request of a plan whose components stay where they are."""
    memory = run_memory(manager.execution_backends.get(plan.backend.value), memory_query(plan, plan.requests[0]))
    return estimate_of(memory, plan.components, plan.memory.available_bytes)


def _with_memory_warning(plan: ExecutionPlan) -> ExecutionPlan:
    memory = plan.memory
    if memory.available_bytes is None or memory.device_peak_bytes <= memory.available_bytes:
        return plan
    needed, free = memory.device_peak_bytes / 2**30, memory.available_bytes / 2**30
    warning = f"about {needed:.1f} GiB are needed on {plan.device.value}, {free:.1f} GiB are free: it may not fit"
    return evolve(plan, warnings=(*plan.warnings, warning))


def installed_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a result."""
    found = {}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
