"""What clients of a server may do with adapters: load, apply, take out, list."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from attrs import define, evolve, field, fields

from sglang_core import ApiError, ConfigError, RequestError

from .adapters import Adapter, active_adapters, denoisers_of, known_adapters, strengths_setting
from .config import LoraOptions, LoraServerOptions

if TYPE_CHECKING:
    from sglang_core import Server

#: Strengths by component and nickname.
Strengths = dict[str, dict[str, float]]
_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_FLAG = re.compile(r"--lora-[a-z-]+")
_UNAVAILABLE = frozenset({"starting", "restarting", "failed", "stopping"})


@define(eq=False)
class _Told:
    """What one server was told; changes are made one after the other."""

    #: What ``merge`` brings back: the adapters that were applied last, by component.
    last: Strengths
    lock: asyncio.Lock = field(factory=asyncio.Lock)


class LoraControl:
    """Acts for the clients of servers in this process."""

    def __init__(self) -> None:
        self._told: WeakKeyDictionary[Server, _Told] = WeakKeyDictionary()

    async def act(self, server: "Server", action: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do one thing, or raise an ``SglangError`` or ``ApiError`` and leave everything as it is.

        ``set`` takes ``nicknames`` and, each for every nickname or ``None``, ``paths``, ``targets``, ``strengths`` and
        ``alphas``; ``merge`` takes ``target`` and ``strength``; ``unmerge`` takes ``target``; ``list`` takes nothing.
        """
        if action == "list":
            return _listing(server)
        told = self._told.get(server)
        if told is None:
            told = self._told[server] = _Told(_active(server))
        health = server.health()
        if health.status in _UNAVAILABLE:
            message = f"the model is not ready: {health.reason}"
            raise ApiError(503, message, code="model_not_loaded", headers={"Retry-After": "1"})
        async with told.lock:
            if action == "set":
                return await _set(server, told, values)
            if action == "merge":
                return await _merge(server, told, values["target"], values["strength"])
            if action == "unmerge":
                return await _unmerge(server, values["target"])
        raise RequestError(f"adapters can not be told to {action}", "use set, merge, unmerge or list")


async def _set(server: "Server", told: _Told, values: Mapping[str, Any]) -> Mapping[str, Any]:
    nicknames: Sequence[str] = values["nicknames"]
    if len(set(nicknames)) < len(nicknames):
        raise _wrong("lora_nickname", "'lora_nickname' names an adapter twice")
    paths = _each(values["paths"], nicknames, "lora_path", None, only_each=True)
    targets = _each(values["targets"], nicknames, "target", "all")
    strengths = _each(values["strengths"], nicknames, "strength", 1.0)
    alphas = _each(values["alphas"], nicknames, "lora_alpha", None)
    known = _known(server)
    for nickname, path, alpha in zip(nicknames, paths, alphas, strict=True):
        if path is None and nickname not in known:
            loaded = ", ".join(known) or "none"
            message = f"there is no adapter {nickname!r} (loaded: {loaded}): give its 'lora_path'"
            raise ApiError(404, message, param="lora_nickname", code="lora_not_found")
        adapter = known.get(nickname) or Adapter(nickname=nickname, path="")
        if path is not None:
            allowed = await asyncio.to_thread(_allowed_path, server, path)
            if allowed != adapter.path:
                adapter = Adapter(nickname=nickname, path=allowed)
        known[nickname] = adapter if alpha is None else evolve(adapter, alpha=float(alpha))
    active = _active(server)
    places = [_components(server, target) for target in targets]
    for component in {component for components in places for component in components}:
        active[component] = {}  # what was there before is replaced
    for nickname, strength, components in zip(nicknames, strengths, places, strict=True):
        for component in components:
            active[component][nickname] = strength
    await _follow(server, known, active)
    told.last = active
    return {"message": f"{', '.join(nicknames)}: applied to {_names(places)}"}


async def _merge(server: "Server", told: _Told, target: str | None, strength: float | None) -> Mapping[str, Any]:
    components = _components(server, target or "all")
    wanted = {name: told.last.get(name, {}) for name in components}
    if not any(wanted.values()):
        raise ApiError(400, "there is no adapter to merge: set one first", code="lora_not_set")
    active = _active(server)
    for name, own in wanted.items():
        active[name] = {nickname: before if strength is None else strength for nickname, before in own.items()}
    await _follow(server, _known(server), active)
    return {"message": f"merged into {_names([components])}"}


async def _unmerge(server: "Server", target: str | None) -> Mapping[str, Any]:
    components = _components(server, target or "all")
    active = _active(server)
    for name in components:
        active[name] = {}
    await _follow(server, _known(server), active)
    return {"message": f"taken out of {_names([components])}"}


async def _follow(server: "Server", known: Mapping[str, Adapter], active: Strengths) -> None:
    adapters = list(known.values())
    settings = {
        "lora_path": tuple(adapter.path for adapter in adapters),
        "lora_nickname": tuple(adapter.nickname for adapter in adapters),
        "lora_weight_name": tuple(adapter.weight_name or "" for adapter in adapters),
        "lora_alpha": tuple(adapter.alpha or 0.0 for adapter in adapters),
        "lora_scale": (),
        "lora": strengths_setting(active, denoisers_of(server.plan.model)),
    }
    try:
        await server.follow(settings)
    except ConfigError as error:  # an adapter that is damaged, or does not fit
        message = _FLAG.sub(lambda flag: flag[0].removeprefix("--").replace("-", "_"), error.problem)
        named = re.match(r"lora_(nickname|alpha)\b", message)
        message = f"{message}; try: {error.remedy}"
        raise ApiError(400, message, param=named[0] if named else "lora_path", code="invalid_request") from error


def _options(server: "Server") -> LoraOptions:
    """Return the settings of adapters that requests have without a word of their own."""
    names = {field.name for field in fields(LoraOptions)}
    changed = {name: value for name, value in server.request_defaults.items() if name in names}
    return evolve(server.settings.of(LoraOptions), **changed)


def _known(server: "Server") -> dict[str, Adapter]:
    return known_adapters(_options(server))


def _active(server: "Server") -> Strengths:
    denoisers = denoisers_of(server.plan.model)
    found: Strengths = {name: {} for name in denoisers}
    for each in active_adapters(_options(server), denoisers):
        for component, strength in each.strengths.items():
            found[component][each.adapter.nickname] = strength
    return found


def _components(server: "Server", target: str) -> tuple[str, ...]:
    denoisers = denoisers_of(server.plan.model)
    if target == "all":
        return denoisers
    if target not in denoisers:
        raise _wrong("target", f"the model has no {target!r} that adapters change, but {', '.join(denoisers)}")
    return (target,)


def _each(
    values: Sequence[Any] | None, nicknames: Sequence[str], name: str, default: Any, *, only_each: bool = False
) -> Sequence[Any]:
    """Return one value for each nickname; a single one serves all, but for ``only_each``."""
    if values is None:
        return [default] * len(nicknames)
    if len(values) == len(nicknames):
        return values
    if len(values) == 1 and not only_each:
        return list(values) * len(nicknames)
    raise _wrong(name, f"'{name}' has {len(values)} value(s) for {len(nicknames)} adapter(s)")


def _wrong(name: str, message: str) -> ApiError:
    return ApiError(400, message, param=name, code="invalid_value")


def _allowed_path(server: "Server", path: str) -> str:
    """Return the path of an adapter as it is loaded.

    :raises ApiError: 400, if the operator does not allow it; whether there is something is not said then.
    """
    if path in server.settings.of(LoraOptions).lora_path:
        return path
    options = server.settings.of(LoraServerOptions)
    if _HUB_ID.fullmatch(path) and any(fnmatchcase(path, pattern) for pattern in options.lora_repo):
        return path
    for root in options.lora_root:
        folder = root.expanduser().resolve()
        try:
            inside = (folder / path).resolve()
            if inside.is_relative_to(folder) and inside != folder and inside.exists():
                return str(inside)
        except (OSError, ValueError, RuntimeError):  # too long, with a zero, links in a circle
            continue
    message = (
        f"the adapter {path[:200]!r} is not among those that this server loads: its operator allows folders with "
        "--lora-root, below which paths begin, and repos with --lora-repo"
    )
    raise ApiError(400, message, param="lora_path", code="lora_path_not_allowed")


def _listing(server: "Server") -> Mapping[str, Any]:
    known = _known(server)
    entries = {
        component: [
            {
                "nickname": nickname,
                "nicknames": [nickname],
                "path": known[nickname].path,
                "merged": True,
                "mode": "merged",
                "strength": strength,
                "strengths": [strength],
            }
            for nickname, strength in strengths.items()
        ]
        for component, strengths in _active(server).items()
        if strengths
    }
    loaded = [{"nickname": adapter.nickname, "path": adapter.path} for adapter in known.values()]
    return {"loaded_adapters": loaded, "active": entries}


def _names(places: Sequence[Sequence[str]]) -> str:
    return ", ".join(dict.fromkeys(component for components in places for component in components))
