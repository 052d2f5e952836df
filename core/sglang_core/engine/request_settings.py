"""The settings of one request on top of those that a model was loaded with."""

from collections.abc import Collection, Mapping
from typing import Any

from attrs import evolve

from ..errors import RequestError
from ..options import OptionGroup, Origin, Settings
from ..options.host import CallOptions, OutputOptions, RunOptions, SamplingOptions
from ..plugins import PluginManager
from ..registry import closest
from .work import PREVIEW_SETTINGS

#: What may differ from request to request; everything else is fixed when the model is loaded.
_PER_REQUEST = (SamplingOptions, OutputOptions, CallOptions, RunOptions)


def request_settings(manager: PluginManager, settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return the settings of one request; ``values`` are by name or alias, wishes for previews are left out.

    The groups of sampling and output need not be among those of the server's own settings.

    :raises RequestError: for a value that cannot change between requests, or a name that is no setting.
    :raises ConfigError: for a value that its setting does not take.
    """
    settings = _with_request_groups(manager, settings)
    fields = {
        key: field
        for group in settings.groups
        if group.settings in _PER_REQUEST or group.is_per_request
        for field in group.fields
        for key in field.keys
    }
    changes = {}
    for name, value in values.items():
        if name in PREVIEW_SETTINGS:
            continue
        if name not in fields:
            raise _refusal(name, settings, fields)
        changes[fields[name].name] = value
    origins = {name: Origin(kind="python", label=name) for name in changes}
    return settings.replace_from(origins, changes)


def _with_request_groups(manager: PluginManager, settings: Settings) -> Settings:
    present = {group.settings for group in settings.groups}
    known = {group.settings: group for group in manager.options}
    missing = [
        known.get(options) or OptionGroup(name=options.__name__, settings=options)
        for options in _PER_REQUEST
        if options not in present
    ]
    return evolve(settings, groups=(*settings.groups, *missing)) if missing else settings


def _refusal(name: str, settings: Settings, known: Collection[str]) -> RequestError:
    if name in {field.name for _, field, _ in settings.fields()}:
        return RequestError(f"{name} cannot change between requests", f"start the server with {name}")
    close = closest(name, known)
    return RequestError(f"unknown setting {name!r}", f"use {close!r}" if close else "leave it out")
