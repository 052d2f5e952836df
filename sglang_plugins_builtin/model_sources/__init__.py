"""Models in local folders and on the hub."""

from sglang_core import Check, ModelResolver, hookimpl

from .checks import check_hub
from .directory import DirectoryResolver
from .hub import HubResolver


@hookimpl
def sglang_register_model_resolvers() -> list[ModelResolver]:
    return [DirectoryResolver(), HubResolver()]


@hookimpl
def sglang_register_checks() -> list[Check]:
    return [Check(name="hub", run=check_hub)]
