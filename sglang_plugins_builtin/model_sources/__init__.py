"""Models in local folders and on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import Check, hookimpl

from .checks import check_hub
from .directory import DirectoryResolver
from .hub import HubResolver

if TYPE_CHECKING:
    from sglang_core import ModelResolver


@hookimpl
def sglang_register_model_resolvers() -> list[ModelResolver]:
    return [DirectoryResolver(), HubResolver()]


@hookimpl
def sglang_register_checks() -> list[Check]:
    return [Check(name="hub", run=check_hub)]
