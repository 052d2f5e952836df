"""Each hook, exercised by a test that bears its name."""

import click
import pytest
from attrs import frozen

from sglang_core import (
    Check,
    CheckResult,
    OptionGroup,
    RunEnded,
    StepControl,
    hookimpl,
    hookspecs,
    option,
)
from sglang_core.testing import MemoryResolver, MemoryUploader, NoOpBackend, bare_manager

HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("sglang_"))


@frozen(kw_only=True)
class PaintOptions:
    """Paint."""

    colour: str = option(default="red", help="Colour.", env="PAINT_COLOUR")


def registered(hook, implementation):
    """Register a plugin with one hook in a bare manager."""
    manager = bare_manager()
    manager.register(type("Plugin", (), {hook: _method(implementation)})(), "mine")
    return manager


def _method(implementation):
    @hookimpl
    def method(self):
        return implementation()

    return method


def test_sglang_register_options():
    manager = registered("sglang_register_options", lambda: [OptionGroup(name="paint", settings=PaintOptions)])

    assert manager.options.find("colour", manager.options.for_command("generate")).field.details.env == "PAINT_COLOUR"


def test_sglang_register_commands():
    manager = registered("sglang_register_commands", lambda: [click.Command("paint")])

    assert manager.commands.get("paint").name == "paint"


def test_sglang_register_model_resolvers(tmp_path):
    manager = registered("sglang_register_model_resolvers", lambda: [MemoryResolver({}, tmp_path)])

    assert "memory" in manager.model_resolvers


def test_sglang_register_execution_backends():
    manager = registered("sglang_register_execution_backends", lambda: [NoOpBackend(name="paint")])

    assert manager.execution_backends.owner("paint") == "mine (registered by hand)"


def test_backend_is_told_the_manager_it_will_ask():
    told = []

    class Asks:
        @hookimpl
        def sglang_register_execution_backends(self, manager):
            told.append(manager)
            return []

    manager = bare_manager()
    manager.register(Asks(), "mine")

    assert told == [manager]


class Named:
    name = "paint"
    aliases = ("brush",)
    order = 1
    extensions = ("pnt",)
    pipeline_classes = ("PaintPipeline",)


def test_sglang_register_model_families():
    manager = registered("sglang_register_model_families", lambda: [Named()])

    assert manager.model_families.get("PaintPipeline") is manager.model_families.get("paint")


def test_sglang_register_attention_backends():
    manager = registered("sglang_register_attention_backends", lambda: [Named()])

    assert manager.attention_backends.get("brush") is manager.attention_backends.get("paint")


def test_sglang_register_pipeline_transforms():
    manager = registered("sglang_register_pipeline_transforms", lambda: [Named()])

    assert [transform.name for transform in manager.pipeline_transforms] == ["paint"]


def test_sglang_register_media_encoders():
    manager = registered("sglang_register_media_encoders", lambda: [Named()])

    assert manager.media_encoders.get("paint") is manager.media_encoders.get(".pnt")


def test_sglang_register_checks():
    answer = CheckResult(status="ok", message="dry")
    manager = registered("sglang_register_checks", lambda: [Check(name="paint", run=lambda: answer)])

    assert manager.checks.get("paint").run() == answer


def test_sglang_register_launchers():
    manager = registered("sglang_register_launchers", lambda: [Named()])

    assert manager.launchers.owner("paint") == "mine (registered by hand)"


def test_sglang_register_job_stores():
    manager = registered("sglang_register_job_stores", lambda: [Named()])

    assert manager.job_stores.get("brush").name == "paint"


def test_sglang_register_storage_uploaders():
    manager = registered("sglang_register_storage_uploaders", lambda: [MemoryUploader()])

    assert [uploader.name for uploader in manager.storage_uploaders] == [MemoryUploader().name]


def test_sglang_register_routes():
    manager = registered("sglang_register_routes", lambda: [Named()])

    assert manager.routes.get("paint").order == 1


def test_sglang_register_middleware():
    manager = registered("sglang_register_middleware", lambda: [Named()])

    assert manager.middleware.get("paint").order == 1


def test_sglang_on_event():
    heard = []

    class Listens:
        @hookimpl
        def sglang_on_event(self, event):
            heard.append(event)

    manager = bare_manager()
    manager.register(Listens(), "mine")
    event = RunEnded(run_id="1", outcome="completed", duration_s=1.0)

    StepControl(manager.listeners()).emit(event)

    assert heard == [event]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_and_a_contract(hook):
    contract = getattr(hookspecs, hook).__doc__

    assert f"test_{hook}" in globals()
    assert ".. versionadded::" in contract
    assert "raise" in contract
    assert "Called" in contract
