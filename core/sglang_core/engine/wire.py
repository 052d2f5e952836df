"""Settings and errors as JSON values, for the way between the server and its ranks.

Secrets are among the settings: they go over the channel, never through arguments or the environment.
"""

from collections.abc import Mapping
from typing import Any

from attrs import asdict

from .. import errors
from ..errors import SglangError
from ..options import Origin, Settings
from ..options.convert import to_plain
from ..options.engine import EngineOptions
from ..options.settings import Given, merge
from ..plugins import PluginManager


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """Return everything that was given, with its origin, and the groups; those of the engine itself are left out."""
    groups = [group for group in settings.groups if group.settings is not EngineOptions]
    return {
        "groups": [group.name for group in groups],
        "values": [
            {"name": field.name, "value": to_plain(value), "origin": asdict(settings.origin(field.name))}
            for group, field, value in settings.fields()
            if group in groups and settings.is_given(field.name)
        ],
    }


def settings_from_json(manager: PluginManager, values: Mapping[str, Any]) -> Settings:
    """Return the settings that :func:`settings_to_json` described.

    :raises ConfigError: if a value is not right.
    :raises PluginError: if a group is not known here: the plugin that has it is not loaded.
    """
    known = {group.name: group for group in manager.options}
    missing = sorted(set(values["groups"]) - set(known))
    if missing:
        failed = "; ".join(record.error.problem for record in manager.failures if record.error is not None)
        raise errors.PluginError(
            f"the settings {', '.join(missing)} are not known in the model's process"
            + (f": {failed}" if failed else ""),
            "install the plugin that has them, in place of registering it by hand",
        )
    groups = [known[name] for name in values["groups"]]
    fields = {field.name: field for group in groups for field in group.fields}
    givens = [
        Given(field=fields[given["name"]], value=given["value"], origin=Origin(**given["origin"]))
        for given in values["values"]
    ]
    return merge(groups, [givens])


def error_to_json(error: SglangError) -> dict[str, str]:
    """Return class, problem and remedy."""
    known = next(kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    return {"class": known, "problem": error.problem, "remedy": error.remedy}


def error_from_json(values: Mapping[str, str]) -> SglangError:
    """Return the error that :func:`error_to_json` described; one of a plugin's own classes is its nearest known one."""
    kind = getattr(errors, values["class"], SglangError)
    is_error = isinstance(kind, type) and issubclass(kind, SglangError)
    error: SglangError = (kind if is_error else SglangError)(values["problem"], values["remedy"])
    return error
