"""Which attention backend computes what: decided from settings, declared capabilities and probes, without torch.

What a component or one of its roles (``self``, ``cross``) gets, the first that applies:

1. the entry ``<component>.<role>`` of ``component_attention_backends``;
2. its entry ``<component>`` (``transformer_2`` takes those of ``transformer`` where it has none);
3. ``attention_backend``;
4. the first backend in ascending order that is available and fits.

A choice of the user that cannot serve is an error; two exceptions are warnings: encoders and VAEs need not follow
``attention_backend``, and a backend that leaves cross attention to others does so unless the role itself is named.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .attention import ATTENTION_ROLES, Attention, AttentionBackend, AttentionNeed
from .component_plans import group_of
from .devices import compute_capability
from .errors import ConfigError, PluginError, UnavailableError
from .families import PlannedAttention
from .models import ModelDescription
from .options import Settings
from .options.host import AttentionOptions
from .planning_types import AttentionPlan, Choice, ExecutionPlan
from .registry import Availability, Registry, closest, unknown_name

if TYPE_CHECKING:
    from .families import AttentionOf
    from .plugins import PluginManager

#: Where a component without entries of its own looks for them.
_STANDS_IN = {"transformer_2": "transformer"}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@frozen(kw_only=True)
class _Wish:
    """A backend that the user named, the setting that did, and whether the role itself was named."""

    backend: AttentionBackend
    label: str
    is_of_role: bool = False
    is_global: bool = False


def plan_attention(
    manager: "PluginManager",
    needs: Mapping[str, AttentionNeed],
    model: ModelDescription,
    settings: Settings,
    device: str,
    precisions: Mapping[str, str | None],
) -> AttentionPlan:
    """Choose the attention backend of each component and role that attends.

    :param needs: as :meth:`ModelFamily.attention_needs` returns them.
    :param precisions: precision by component.
    :raises ConfigError: for an unknown backend, component or parameter.
    :raises UnavailableError: if a choice of the user cannot serve, or nothing can.
    """
    backends = manager.attention_backends
    _refuse_unknown_entries(needs, model, settings)
    choices: dict[str, Choice[str]] = {}
    warnings: dict[str, None] = {}  # an ordered set
    for key in sorted(needs, key=_most_important_first):
        component = key.partition(".")[0]
        place = _Place(key=key, need=needs[key], device=device, precision=precisions.get(component))
        choice, warning = _choose(backends, place, _wish(backends, settings, place))
        choices[key] = choice
        warnings.update({} if warning is None else {warning: None})
    used = {choice.value: backends.get(choice.value) for choice in choices.values()}
    _checked_parameters(backends, used.values(), settings)
    lossy = tuple(sorted(name for name, backend in used.items() if backend.is_lossy))
    warnings.update(dict.fromkeys(_lossy_warnings(lossy, choices)))
    default = next(iter(choices.values()), Choice(value="none", reason="nothing attends", is_automatic=True))
    return AttentionPlan(default=default, by_role=choices, lossy=lossy, warnings=tuple(warnings))


def attention_of(manager: "PluginManager", plan: ExecutionPlan) -> "AttentionOf":
    """Return the function that gives a family the attention of a component and role, each backend made once.

    :raises SglangError: when called, if the packages of a backend do not import.
    """
    made: dict[str, Attention] = {}

    def find(component: str, role: str) -> PlannedAttention:
        choice = plan.component_attention.get(f"{component}.{role}") or plan.component_attention.get(component)
        if choice is None:
            raise PluginError(
                f"no attention was planned for {component}.{role} of {plan.model.pipeline_class}",
                "name it in attention_needs() of the model family",
            )
        backend = manager.attention_backends.get(choice.value)
        if choice.value not in made:
            made[choice.value] = backend.create(_parameters_of(backend, plan.settings))
        return PlannedAttention(made[choice.value], backend.capabilities)

    return find


@frozen(kw_only=True)
class _Place:
    """A component or role that attends, and where it runs."""

    key: str
    need: AttentionNeed
    device: str
    precision: str | None

    @property
    def component(self) -> str:
        return self.key.partition(".")[0]

    @property
    def role(self) -> str:
        """Return the role; a component that attends as a whole counts as its kind of attention."""
        return self.key.partition(".")[2] or ("cross" if self.need.is_cross else "self")


def _most_important_first(key: str) -> tuple[bool, str, bool]:
    """Sort the denoiser's own attention first: it is what people mean by the attention backend."""
    component, _, role = key.partition(".")
    return group_of(component) != "dit", component, role == "cross"


def _wish(backends: Registry[AttentionBackend], settings: Settings, place: _Place) -> _Wish | None:
    """Return what the user asked for at this place, the most particular setting first."""
    options = settings.of(AttentionOptions)
    entries = options.component_attention_backends
    origin = settings.origin("component_attention_backends")
    # a dotted flag is the origin of its own entry only
    label = f"{origin.label.partition('.')[0]}." if origin.kind == "flag" else f"{origin.label} "
    for component in filter(None, (place.component, _STANDS_IN.get(place.component))):
        for key in (f"{component}.{place.role}", component):
            if key in entries:
                shown = label + key
                return _Wish(backend=named_backend(backends, entries[key], shown), label=shown, is_of_role="." in key)
    if options.attention_backend is None:
        return None
    label = settings.origin("attention_backend").label
    return _Wish(backend=named_backend(backends, options.attention_backend, label), label=label, is_global=True)


def named_backend(backends: Registry[AttentionBackend], name: str, label: str) -> AttentionBackend:
    """Return the backend of a name or alias, however it is spelled.

    :param label: how messages call the setting.
    :raises ConfigError: if there is none; the closest name is told.
    """
    spelled = name.strip().lower().replace("-", "_")
    if spelled in backends:
        return backends.get(spelled)
    problem, remedy = unknown_name("attention backend", name, [backend.name for backend in backends])
    raise ConfigError(f"{label}: {problem}", remedy)


def _choose(backends: Registry[AttentionBackend], place: _Place, wish: _Wish | None) -> tuple[Choice[str], str | None]:
    """Return the choice for one place, and a warning if it is not what the user asked for."""
    if wish is None:
        return _automatic(backends, place), None
    answer = wish.backend.probe()
    answer = attention_fits(wish.backend, place.need, place.device, place.precision) if answer.is_available else answer
    name = wish.backend.name
    if answer.is_available:
        reason = f"{wish.label}; lossy" if wish.backend.is_lossy else wish.label
        return Choice(value=name, reason=reason, is_automatic=False), None
    leaves_cross = place.role == "cross" and not wish.backend.capabilities.has_cross and not wish.is_of_role
    if leaves_cross or (wish.is_global and group_of(place.component) != "dit"):
        choice = _automatic(backends, place)
        return choice, f"{wish.label} {name} does not serve {place.key}, which uses {choice.value}: {answer.reason}"
    raise UnavailableError(f"{wish.label} {name} can not serve {place.key}: {answer.reason}", answer.remedy)


def _automatic(backends: Registry[AttentionBackend], place: _Place) -> Choice[str]:
    refusals: list[str] = []
    ordered = sorted((b for b in backends if b.order is not None), key=lambda backend: backend.order or 0)
    for backend in ordered:
        answer = attention_fits(backend, place.need, place.device, place.precision)
        answer = backend.probe() if answer.is_available else answer
        if answer.is_available:
            skipped = "".join(f"; not {refusal}" for refusal in refusals)
            return Choice(value=backend.name, reason=f"the first that fits{skipped}", is_automatic=True)
        refusals.append(f"{backend.name}: {answer.reason}")
    reasons = "; ".join(refusals) or "none is installed"
    raise UnavailableError(
        f"no attention backend can serve {place.key} on {place.device}: {reasons}",
        "see 'sglang attention', or choose another --precision or --device",
    )


def attention_fits(backend: AttentionBackend, need: AttentionNeed, device: str, precision: str | None) -> Availability:
    """Say whether the declared capabilities of a backend cover a need; nothing is probed or imported."""
    can = backend.capabilities
    if can.devices and device not in can.devices:
        return Availability.no(f"it runs on {_listed(can.devices)}, not on {device}", "choose another backend")
    if precision is not None and can.precisions and precision not in can.precisions:
        remedy = f"use --precision {next(iter(can.precisions))}, or another backend"
        return Availability.no(f"it computes in {_listed(can.precisions)}, not in {precision}", remedy)
    unfit = _unfit_shape(backend, need)
    if unfit is not None:
        return Availability.no(unfit, "choose another backend for it with --component-attention-backends")
    return _fits_capability(backend, device)


def _unfit_shape(backend: AttentionBackend, need: AttentionNeed) -> str | None:
    can = backend.capabilities
    if can.head_dims and need.head_dim not in can.head_dims:
        return f"it takes heads of size {_listed(can.head_dims)}, not {need.head_dim}"
    if can.max_head_dim is not None and need.head_dim > can.max_head_dim:
        return f"it takes heads up to size {can.max_head_dim}, not {need.head_dim}"
    is_grouped = need.num_kv_heads is not None and need.num_kv_heads != need.num_heads
    wanted = {
        "masks": (need.has_mask, can.has_masks),
        "causal attention": (need.is_causal, can.has_causal),
        "cross attention": (need.is_cross, can.has_cross),
        "grouped key heads": (is_grouped, can.has_grouped_heads),
        "the log-sum-exp": (need.needs_lse, can.has_lse),
    }
    missing = [what for what, (is_needed, is_there) in wanted.items() if is_needed and not is_there]
    return f"it does not compute {' and '.join(missing)}" if missing else None


def _fits_capability(backend: AttentionBackend, device: str) -> Availability:
    can = backend.capabilities
    least, below = can.min_compute_capability, can.below_compute_capability
    if device != "cuda" or (least is None and below is None):
        return Availability.yes()
    found = compute_capability()
    if found is None:
        return Availability.no("it needs an NVIDIA GPU, and the driver names none", "choose another backend")
    if least is not None and found < least:
        reason = f"it needs compute capability {_version(least)}, this GPU has {_version(found)}"
        return Availability.no(reason, "choose another backend")
    if below is not None and found >= below:
        reason = f"it runs below compute capability {_version(below)}, this GPU has {_version(found)}"
        return Availability.no(reason, "choose another backend")
    return Availability.yes()


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def _version(capability: tuple[int, int]) -> str:
    return ".".join(str(number) for number in capability)


def _refuse_unknown_entries(needs: Mapping[str, AttentionNeed], model: ModelDescription, settings: Settings) -> None:
    """Refuse entries of ``component_attention_backends`` that no attention layer of this model would read."""
    known: dict[str, None] = {}
    for key, need in needs.items():
        component, _, role = key.partition(".")
        role = role or ("cross" if need.is_cross else "self")
        known.update({component: None, f"{component}.{role}": None})
    label = settings.origin("component_attention_backends").label
    for key in settings.of(AttentionOptions).component_attention_backends:
        component, dot, role = key.partition(".")
        if key in known:
            continue
        if dot and role not in ATTENTION_ROLES:
            raise ConfigError(f"{label}: {role!r} of {key!r} is no role of attention", "use .self or .cross")
        if component in model.components and component not in known:
            problem = f"{label}: {component} of {model.reference} has no attention that can be chosen"
            raise ConfigError(problem, f"use one of: {', '.join(known) or 'none'}")
        if component in known:
            problem = f"{label}: {component} of {model.reference} has no {role} attention"
            raise ConfigError(problem, f"use {component}, without a role")
        problem, remedy = unknown_name(f"component with attention of {model.reference}", key, known)
        raise ConfigError(f"{label}: {problem}", remedy)


def _checked_parameters(
    backends: Registry[AttentionBackend], used: Iterable[AttentionBackend], settings: Settings
) -> None:
    """Refuse parameters that no backend of the plan takes, and values of another type."""
    label = settings.origin("attention_backend_config").label
    active = list(used)
    taken = {key: backend for backend in active for key in backend.parameters}
    for key, value in settings.of(AttentionOptions).attention_backend_config.items():
        if key in taken:
            _typed(value, taken[key].parameters[key], f"{label}: {key} of {taken[key].name}")
            continue
        owner = next((backend.name for backend in backends if key in backend.parameters), None)
        names = ", ".join(backend.name for backend in active) or "none"
        if owner is not None:
            problem = f"{label}: {key!r} is a parameter of {owner}, but the plan uses {names}"
            raise ConfigError(problem, f"add --attention-backend {owner}, or leave {key} out")
        problem = f"{label}: no attention backend of the plan ({names}) has a parameter {key!r}"
        close = closest(key, taken)
        known = ", ".join(taken)
        raise ConfigError(problem, f"use {close!r}" if close else f"use {known}" if known else f"leave {key} out")


def _parameters_of(backend: AttentionBackend, settings: Settings) -> dict[str, Any]:
    label = settings.origin("attention_backend_config").label
    return {
        key: _typed(value, backend.parameters[key], f"{label}: {key} of {backend.name}")
        for key, value in settings.of(AttentionOptions).attention_backend_config.items()
        if key in backend.parameters
    }


def _typed(value: Any, wanted: type, what: str) -> Any:
    """Return a parameter in its declared type: whole numbers are numbers, nothing else is converted."""
    if wanted is float and type(value) is int:
        return float(value)
    is_right = isinstance(value, wanted) and not (wanted is not bool and isinstance(value, bool))
    if not is_right:
        words = _WORDS.get(wanted, wanted.__name__)
        raise ConfigError(f"{what}: expected {words}, not {value!r}", f"give {words}")
    return value


def _lossy_warnings(lossy: Iterable[str], choices: Mapping[str, Choice[str]]) -> list[str]:
    return [
        f"attention backend {name} is lossy: {_listed(key for key, choice in choices.items() if choice.value == name)} "
        "differs from exact attention by more than rounding"
        for name in lossy
    ]
