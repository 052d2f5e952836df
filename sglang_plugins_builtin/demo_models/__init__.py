"""The models that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import Check, hookimpl

from .resolver import DemoResolver, check_embedded_models

if TYPE_CHECKING:
    from sglang_core import ModelResolver


@hookimpl
def sglang_register_model_resolvers() -> list[ModelResolver]:
    return [DemoResolver()]


@hookimpl
def sglang_register_checks() -> list[Check]:
    return [Check(name="embedded models", run=check_embedded_models)]
