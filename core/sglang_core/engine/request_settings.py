"""The settings of requests on top of those that a model was loaded with."""

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


class RequestSettings:
    """Makes the settings of requests; what is the same for all of them is found once.

    The groups of sampling and output need not be among those of the server's own settings.

    :param settings: those that the model was loaded with.
    """

    def __init__(self, manager: PluginManager, settings: Settings) -> None:
        self._settings = _with_request_groups(manager, settings)
        self._fields = {
            key: field
            for group in self._settings.groups
            if group.settings in _PER_REQUEST or group.is_per_request
            for field in group.fields
            for key in field.keys
        }

    def of(self, values: Mapping[str, Any]) -> Settings:
        """Return the settings of one request; ``values`` are by name or alias, wishes for previews are left out.

        :raises RequestError: for a value that cannot change between requests, or a name that is no setting.
        :raises ConfigError: for a value that its setting does not take.
        """
        changes = {}
        for name, value in values.items():
            if name in PREVIEW_SETTINGS:
                continue
            if name not in self._fields:
                raise _refusal(name, self._settings, self._fields)
            changes[self._fields[name].name] = value
        origins = {name: Origin(kind="python", label=name) for name in changes}
        return self._settings.replace_from(origins, changes)


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
