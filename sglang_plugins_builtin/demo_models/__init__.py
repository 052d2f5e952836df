"""The models that come with the package."""

from sglang_core import Check, ModelResolver, hookimpl

from .resolver import DemoResolver, check_embedded_models


@hookimpl
def sglang_register_model_resolvers() -> list[ModelResolver]:
    return [DemoResolver()]


@hookimpl
def sglang_register_checks() -> list[Check]:
    return [Check(name="embedded models", run=check_embedded_models)]
