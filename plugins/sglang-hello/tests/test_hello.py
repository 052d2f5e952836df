"""The plugin without a model: registered by hand into a manager that has nothing else."""

import logging
from types import SimpleNamespace

import pytest
import sglang_hello
from click.testing import CliRunner

from sglang_core import PluginManager
from sglang_core.testing import bare_manager, make_settings


@pytest.fixture
def manager() -> PluginManager:
    manager = bare_manager()
    manager.register(sglang_hello, "hello")
    return manager


def test_hello_greets(manager):
    done = CliRunner().invoke(manager.commands.get("hello"), ["reader"])

    assert (done.exit_code, done.output) == (0, "hello, reader\n")


def test_the_setting_has_a_flag_and_a_variable(manager):
    (field,) = next(iter(manager.options)).fields

    assert (field.flag, field.details.env) == ("--count-parameters", "SGLANG_HELLO_COUNT_PARAMETERS")


def test_the_plan_has_the_step_only_if_it_is_asked_for(manager):
    step = manager.pipeline_transforms.get("count-parameters")

    assert step.wanted(SimpleNamespace(settings=make_settings(manager))) is None
    assert step.wanted(SimpleNamespace(settings=make_settings(manager, count_parameters=True)))


def test_parameters_of_components_that_have_some_are_counted(manager, caplog):
    values = [SimpleNamespace(numel=lambda: 1000), SimpleNamespace(numel=lambda: 234)]
    components = {"transformer": SimpleNamespace(parameters=lambda: values), "scheduler": object()}

    with caplog.at_level(logging.INFO):
        manager.pipeline_transforms.get("count-parameters").apply(SimpleNamespace(components=components), None)

    assert caplog.messages == ["transformer: 1,234 parameters"]
