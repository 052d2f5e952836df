"""Which adapters there are and which act, from settings alone."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from attrs import frozen

from sglang_core import ConfigError, ModelDescription, closest

from .config import LoraOptions

T = TypeVar("T")
_LARGEST_STRENGTH = 100.0
#: Components whose weights adapters change, by how their names begin.
_DENOISERS = ("transformer", "unet")


@frozen(kw_only=True)
class Adapter:
    """An adapter that is known under a nickname. ``weight_name`` and ``alpha`` are ``None`` if its files decide."""

    nickname: str
    path: str
    weight_name: str | None = None
    alpha: float | None = None


@frozen(kw_only=True)
class ActiveAdapter:
    """An adapter that acts, and how strongly on each component; components without a strength stay as they are."""

    adapter: Adapter
    strengths: Mapping[str, float]


def denoisers_of(model: ModelDescription) -> tuple[str, ...]:
    """Return the components that adapters can change."""
    return tuple(
        name for name, component in model.components.items() if name.startswith(_DENOISERS) and component.weights
    )


def known_adapters(options: LoraOptions) -> dict[str, Adapter]:
    """Return the adapters of the settings by nickname.

    :raises ConfigError: if paths, nicknames and the rest do not fit together.
    """
    count = len(options.lora_path)
    if not count:
        for name in ("lora_nickname", "lora_scale", "lora_alpha", "lora_weight_name"):
            if getattr(options, name):
                raise ConfigError(f"{name} is given, and there is no adapter", "give its path with --lora-path")
    nicknames = options.lora_nickname or tuple(f"default-{i + 1}" if i else "default" for i in range(count))
    if len(nicknames) != count:
        raise ConfigError(
            f"lora_nickname: {len(nicknames)} nickname(s) for {count} adapter(s)", f"give {count}, or leave them out"
        )
    alphas = _each(options.lora_alpha, count, "lora_alpha", 0.0)
    names = _each(options.lora_weight_name, count, "lora_weight_name", "")
    known: dict[str, Adapter] = {}
    for nickname, path, name, alpha in zip(nicknames, options.lora_path, names, alphas, strict=True):
        _check_nickname(nickname)
        if nickname in known:
            raise ConfigError(f"lora_nickname: two adapters are called {nickname!r}", "give each a name of its own")
        known[nickname] = Adapter(nickname=nickname, path=path, weight_name=name or None, alpha=alpha or None)
    return known


def active_adapters(options: LoraOptions, denoisers: Sequence[str]) -> tuple[ActiveAdapter, ...]:
    """Return the adapters that act, in the order in which they are applied.

    :raises ConfigError: if one is not known, or a component or strength is none.
    """
    known = known_adapters(options)
    wanted: Mapping[str, Any]
    if options.lora is None:
        wanted = dict(zip(known, _each(options.lora_scale, len(known), "lora_scale", 1.0), strict=True))
    else:
        wanted = options.lora
    strengths: dict[str, dict[str, float]] = {}
    # What is said of one component wins over what is said of all.
    for key in sorted(wanted, key=lambda key: "@" in key):
        nickname, _, component = key.partition("@")
        adapter = _find(nickname, known)
        if component and component not in denoisers:
            there = ", ".join(denoisers) or "none that adapters change"
            raise ConfigError(f"lora: the model has no component {component!r} for {nickname}", f"it has {there}")
        own = strengths.setdefault(adapter.nickname, {})
        own.update(dict.fromkeys([component] if component else denoisers, _strength(key, wanted[key])))
    order = {_find(key.partition("@")[0], known).nickname: None for key in wanted}
    acting = [
        ActiveAdapter(adapter=known[name], strengths={c: s for c, s in strengths[name].items() if s}) for name in order
    ]
    return tuple(each for each in acting if each.strengths)


def strengths_setting(active: Mapping[str, Mapping[str, float]], denoisers: Collection[str]) -> dict[str, float]:
    """Return the setting ``lora`` for strengths by component and nickname."""
    nicknames = {nickname: None for strengths in active.values() for nickname in strengths}
    setting: dict[str, float] = {}
    for nickname in nicknames:
        by_component = {name: active[name][nickname] for name in active if nickname in active[name]}
        if len(by_component) == len(denoisers) and len(set(by_component.values())) == 1:
            setting[nickname] = next(iter(by_component.values()))
        else:
            setting.update({f"{nickname}@{name}": strength for name, strength in by_component.items()})
    return setting


def _each(values: tuple[T, ...], count: int, name: str, default: T) -> tuple[T, ...]:
    """Return one value for each adapter."""
    if len(values) in (0, 1):
        return (values or (default,)) * count
    if len(values) != count:
        raise ConfigError(f"{name}: {len(values)} values for {count} adapter(s)", f"give 1 or {count}")
    return values


def _check_nickname(nickname: str) -> None:
    if not nickname or not nickname.isprintable() or "@" in nickname or nickname != nickname.strip():
        raise ConfigError(
            f"lora_nickname: {nickname!r} can not be a nickname", "use letters, digits, dots, dashes and underscores"
        )


def _find(nickname: str, known: Mapping[str, Adapter]) -> Adapter:
    """Return a known adapter; as in every flag, dashes and underscores are the same."""
    if nickname in known:
        return known[nickname]
    for name, adapter in known.items():
        if name.replace("-", "_") == nickname.replace("-", "_"):
            return adapter
    loaded = ", ".join(known) or "none"
    close = closest(nickname, known)
    remedy = f"use {close!r}" if close else "use one that is loaded, or load it first"
    raise ConfigError(f"lora: there is no adapter {nickname!r} (loaded: {loaded})", remedy)


def _strength(key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or abs(value) > _LARGEST_STRENGTH:
        raise ConfigError(
            f"lora: the strength of {key} is {value!r}", f"give a number from -{_LARGEST_STRENGTH:g} to 100"
        )
    return float(value)
