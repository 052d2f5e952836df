"""Discovery, quarantine and provenance of plugins, and what they contribute."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from itertools import chain
from typing import TYPE_CHECKING, Any

import pluggy
from attrs import evolve, frozen

from . import hookspecs
from .errors import PluginError, SglangError
from .hookspecs import ENTRY_POINT_GROUP, PROJECT_NAME
from .options.namespace import OptionNamespace
from .registry import Registry, closest

if TYPE_CHECKING:
    import click

    from .attention import AttentionBackend
    from .backends import ExecutionBackend, PipelineTransform
    from .checks import Check
    from .engine.launching import Launcher
    from .events import Event, EventListener
    from .families import ModelFamily
    from .jobs.store import JobStore
    from .media import MediaEncoder
    from .models import ModelResolver
    from .server.parts import MiddlewareLayer, RouteGroup
    from .storage import StorageUploader

logger = logging.getLogger(__name__)

OWN_DISTRIBUTION = "sglang-plugins"
HOOK_NAMES = tuple(name for name in vars(hookspecs) if name.startswith(f"{PROJECT_NAME}_"))


@frozen(kw_only=True)
class PluginRecord:
    """One plugin as ``sglang plugins`` shows it, whether it works or not."""

    name: str
    distribution: str
    version: str
    #: The entry point's value, ``package.module``; for plugins registered by hand, their type.
    target: str
    load_ms: float = 0.0
    hooks: tuple[str, ...] = ()
    #: What it contributes, as (kind, name).
    contributions: tuple[tuple[str, str], ...] = ()
    is_disabled: bool = False
    error: PluginError | None = None

    @property
    def owner(self) -> str:
        """Return how messages call the plugin: its name and the package it is from."""
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")


class PluginManager:
    """The plugins of one process and the registries made of what they contribute.

    There is no global one: :func:`create_plugin_manager` returns a fresh manager.
    """

    def __init__(self) -> None:
        self.records: dict[str, PluginRecord] = {}
        self.options = OptionNamespace()
        self.commands: Registry[click.Command] = Registry("command")  # type: ignore[type-var]  # click types name as optional
        self.model_resolvers: Registry[ModelResolver] = Registry("model resolver")
        self.execution_backends: Registry[ExecutionBackend] = Registry("execution backend")
        self.model_families: Registry[ModelFamily] = Registry("model family", also_claimed=_pipeline_classes)
        self.attention_backends: Registry[AttentionBackend] = Registry("attention backend")
        self.pipeline_transforms: Registry[PipelineTransform] = Registry("pipeline transform")
        self.media_encoders: Registry[MediaEncoder] = Registry("media encoder", also_claimed=_extensions)
        self.checks: Registry[Check] = Registry("check")
        self.launchers: Registry[Launcher] = Registry("launcher")
        self.job_stores: Registry[JobStore] = Registry("job store")
        self.storage_uploaders: Registry[StorageUploader] = Registry("storage uploader")
        self.routes: Registry[RouteGroup] = Registry("route group")
        self.middleware: Registry[MiddlewareLayer] = Registry("middleware")
        self._pluggy = pluggy.PluginManager(PROJECT_NAME)
        self._pluggy.add_hookspecs(hookspecs)
        if os.environ.get("SGLANG_TRACE_PLUGINS") == "1":
            self._pluggy.add_hookcall_monitoring(_trace_before, _trace_after)

    def register(self, plugin: object, name: str) -> PluginRecord:
        """Register an object or module as a plugin, for tests and embedding programs.

        :raises PluginError: if it breaks the contract of a hook or claims a taken name; it is not registered then.
        """
        record = PluginRecord(name=name, distribution="registered by hand", version="", target=type(plugin).__name__)
        loaded = self._load(record, lambda: plugin)
        if loaded.error is not None:
            del self.records[name]
            raise loaded.error
        return loaded

    def load_entry_point(self, entry_point: EntryPoint, *, is_disabled: bool = False) -> PluginRecord:
        """Import and register one entry point; a broken one is quarantined, with its error on the record."""
        distribution, version = _distribution(entry_point.dist)
        record = PluginRecord(
            name=entry_point.name,
            distribution=distribution,
            version=version,
            target=entry_point.value,
            is_disabled=is_disabled,
        )
        if is_disabled:
            self.records.setdefault(entry_point.name, record)
            return record
        return self._load(record, entry_point.load)

    def _load(self, record: PluginRecord, load: Callable[[], object]) -> PluginRecord:
        if record.name in self.records:
            return self._refuse_second(record)
        self.records[record.name] = record
        started = time.perf_counter()
        try:
            hooks = self._register(record, load())
            contributions = self._collect(record, hooks)
            loaded = evolve(record, hooks=hooks, contributions=contributions)
        except (Exception, SystemExit) as error:  # importing and calling foreign code may raise anything
            if self._pluggy.has_plugin(record.name):
                self._pluggy.unregister(name=record.name)
            self._withdraw(record.owner)
            loaded = evolve(record, error=_plugin_error(record, error))
        loaded = evolve(loaded, load_ms=(time.perf_counter() - started) * 1000)
        self.records[record.name] = loaded
        return loaded

    def _refuse_second(self, record: PluginRecord) -> PluginRecord:
        """Keep the first of two plugins with one name, and show the second under a name of its own."""
        first = self.records[record.name]
        error = PluginError(
            f"plugin name {record.name!r} of {record.distribution} is already taken by {first.distribution}",
            f"uninstall one of the two packages: {first.distribution}, {record.distribution}",
        )
        refused = evolve(record, error=error)
        self.records[f"{record.name} ({record.distribution})"] = refused
        return refused

    def _register(self, record: PluginRecord, plugin: object) -> tuple[str, ...]:
        _refuse_unmarked(plugin)
        self._pluggy.register(plugin, name=record.name)
        self._pluggy.check_pending()  # otherwise a misspelled hook is never called, silently
        callers = self._pluggy.get_hookcallers(plugin) or []
        return tuple(sorted(caller.name for caller in callers))

    def _collect(self, record: PluginRecord, hooks: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Call each ``register`` hook of one plugin and add what it returns to the registries."""
        found = []
        others = [plugin for name, plugin in self._pluggy.list_name_plugin() if name != record.name]
        for hook, (kind, add) in self._collectors().items():
            if hook not in hooks:
                continue
            caller = self._pluggy.subset_hook_caller(hook, remove_plugins=others)
            takes_manager = caller.spec is not None and "manager" in caller.spec.argnames
            for result in caller(manager=self) if takes_manager else caller():
                for item in _items(hook, kind, result):
                    add(item, record.owner)
                    found.append((kind, str(item.name)))
        return tuple(found)

    def _collectors(self) -> dict[str, tuple[str, Callable[[Any, str], None]]]:
        return {
            "sglang_register_options": ("options", self.options.add),
            "sglang_register_commands": ("command", self.commands.add),
            "sglang_register_model_resolvers": ("model resolver", self.model_resolvers.add),
            "sglang_register_execution_backends": ("execution backend", self.execution_backends.add),
            "sglang_register_model_families": ("model family", self.model_families.add),
            "sglang_register_attention_backends": ("attention backend", self.attention_backends.add),
            "sglang_register_pipeline_transforms": ("pipeline transform", self.pipeline_transforms.add),
            "sglang_register_media_encoders": ("media encoder", self.media_encoders.add),
            "sglang_register_checks": ("check", self.checks.add),
            "sglang_register_launchers": ("launcher", self.launchers.add),
            "sglang_register_job_stores": ("job store", self.job_stores.add),
            "sglang_register_storage_uploaders": ("storage uploader", self.storage_uploaders.add),
            "sglang_register_routes": ("route group", self.routes.add),
            "sglang_register_middleware": ("middleware", self.middleware.add),
        }

    def _withdraw(self, owner: str) -> None:
        """Take back what a plugin contributed before it broke."""
        self.options.remove(owner)
        registries: Sequence[Registry[Any]] = (
            self.commands,
            self.model_resolvers,
            self.execution_backends,
            self.model_families,
            self.attention_backends,
            self.pipeline_transforms,
            self.media_encoders,
            self.checks,
            self.launchers,
            self.job_stores,
            self.storage_uploaders,
            self.routes,
            self.middleware,
        )
        for registry in registries:
            registry.remove(owner)

    @property
    def failures(self) -> tuple[PluginRecord, ...]:
        """Return the quarantined plugins."""
        return tuple(record for record in self.records.values() if record.error is not None)

    def listeners(self) -> list[EventListener]:
        """Return one event listener for each plugin that listens, so that a failing one fails alone."""
        listeners: list[EventListener] = []
        for impl in reversed(self._pluggy.hook.sglang_on_event.get_hookimpls()):
            others = [plugin for plugin in self._pluggy.get_plugins() if plugin is not impl.plugin]
            caller = self._pluggy.subset_hook_caller("sglang_on_event", remove_plugins=others)
            listeners.append(_listener(caller))
        return listeners


def create_plugin_manager(
    *, only_built_ins: bool = False, disable: Collection[str] = (), allow: Collection[str] | None = None
) -> PluginManager:
    """Return a fresh manager with the installed plugins: the built-ins first, then the others by name.

    :param only_built_ins: leave out what other packages bring, so that a test sees the same plugins everywhere.
    :param disable: names of plugins to leave out.
    :param allow: names of the only plugins of other packages to load; ``None``: all of them.
    """
    manager = PluginManager()
    installed = sorted(entry_points(group=ENTRY_POINT_GROUP), key=_load_order)
    for entry_point in installed:
        is_built_in = _is_built_in(entry_point)
        if only_built_ins and not is_built_in:
            continue
        is_allowed = is_built_in or allow is None or entry_point.name in allow
        manager.load_entry_point(entry_point, is_disabled=entry_point.name in disable or not is_allowed)
    return manager


def plugin_choice_from_environment() -> tuple[set[str], set[str] | None]:
    """Return the plugins that ``SGLANG_DISABLE_PLUGINS`` disables and those that ``SGLANG_PLUGINS`` allows."""
    disabled = os.environ.get("SGLANG_DISABLE_PLUGINS", "")
    allowed = os.environ.get("SGLANG_PLUGINS")
    return _names(disabled), None if allowed is None else _names(allowed)


def _listener(caller: Callable[..., object]) -> EventListener:
    def listen(event: Event) -> None:
        caller(event=event)

    return listen


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",") if name.strip()}


def _is_built_in(entry_point: EntryPoint) -> bool:
    return _distribution(entry_point.dist)[0] == OWN_DISTRIBUTION


@cache
def _distribution(distribution: Distribution | None) -> tuple[str, str]:
    """Return name and version of a package, from the first lines of its metadata.

    ``Distribution.name`` and ``.version`` each parse the whole file, README included, at every access.
    """
    found = {"Name": "unknown", "Version": ""}
    text = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "") if distribution else ""
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if not line:
            break
        if key in found:
            found[key] = value.strip()
    return found["Name"], found["Version"]


def _load_order(entry_point: EntryPoint) -> tuple[bool, str, str]:
    """Built-ins first, so that a stranger who claims a taken name is the one who is refused."""
    return not _is_built_in(entry_point), entry_point.name, entry_point.value


def _pipeline_classes(family: ModelFamily) -> list[str]:
    """Return what a family claims beside its name: two families for one class would be a matter of luck."""
    return [name for name in family.pipeline_classes if name != family.name]


def _extensions(encoder: MediaEncoder) -> list[str]:
    return [f".{extension}" for extension in encoder.extensions]


def _refuse_unmarked(plugin: object) -> None:
    """Refuse functions with a hook's prefix that are not marked: pluggy would never call them."""
    for name in dir(plugin):
        member = getattr(plugin, name, None)
        if name.startswith(f"{PROJECT_NAME}_") and callable(member) and not hasattr(member, f"{PROJECT_NAME}_impl"):
            raise PluginError(f"{name} is not marked as a hook", f"put @hookimpl above {name}, or rename it")


def _items(hook: str, kind: str, result: Any) -> Sequence[Any]:
    """Return what a hook contributed.

    :raises PluginError: if it is no list, or holds something without a name.
    """
    if not isinstance(result, list | tuple):
        raise PluginError(f"{hook} returned {type(result).__name__}, not a list", f"return a list from {hook}")
    for item in result:
        if not isinstance(getattr(item, "name", None), str):
            raise PluginError(
                f"{hook} returned {type(item).__name__}, which is no {kind}: it has no name",
                f"return objects with a name from {hook}",
            )
    return result


def _plugin_error(record: PluginRecord, error: BaseException) -> PluginError:
    whose = f"of {record.distribution} {record.version} " if record.version else ""
    remedy = f"pass --disable-plugin {record.name}"
    if record.version:
        remedy = f"update or uninstall {record.distribution}, or {remedy}"
    if isinstance(error, SglangError):
        detail = error.problem
        remedy = error.remedy if "--disable-plugin" in error.remedy else f"{error.remedy}; or {remedy}"
    elif isinstance(error, pluggy.PluginValidationError):
        detail = _validation_problem(error)
    else:
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return PluginError(f"plugin {record.name!r} {whose}does not load: {detail}", remedy)


def _validation_problem(error: pluggy.PluginValidationError) -> str:
    """Say in one line what pluggy says in several."""
    lines = str(error).strip().splitlines()
    misspelled = lines[0].partition("unknown hook '")[2].partition("'")[0]
    if misspelled:
        close = closest(misspelled, HOOK_NAMES)
        return f"there is no hook {misspelled!r}" + (f" (did you mean {close!r}?)" if close else "")
    hook = lines[0].partition("for hook '")[2].partition("'")[0]
    return f"{hook}: {lines[-1]}" if hook else lines[0]


def _trace_before(hook_name: str, methods: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    names = ", ".join(method.plugin_name for method in reversed(methods)) or "nobody"
    arguments = ", ".join(f"{name}={_traced(value)}" for name, value in kwargs.items())
    _write_trace(f"{hook_name}({arguments}) asks {names}")


def _trace_after(outcome: Any, hook_name: str, methods: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    if outcome.exception is not None:
        _write_trace(f"{hook_name} raised {outcome.exception!r}")
        return
    results = [result if isinstance(result, list | tuple) else [result] for result in outcome.get_result()]
    _write_trace(f"{hook_name} returned {', '.join(map(_traced, chain(*results))) or 'nothing'}")


def _traced(value: Any) -> str:
    """Name what a hook was told or answered."""
    name = getattr(value, "name", None)
    return f"{type(value).__name__} {name}" if isinstance(name, str) else type(value).__name__


def _write_trace(line: str) -> None:
    # Not by logging: plugins are loaded before it is configured, and a trace must not depend on --log-level.
    sys.stderr.write(f"sglang hook: {line}\n")
