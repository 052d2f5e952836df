"""Transforms that follow the settings of each run, and not only those that a model was loaded with."""

from pathlib import Path

import pytest
from attrs import frozen

from sglang_core import Availability, Generator, OptionGroup, RequestError, StepControl, hookimpl, option
from sglang_core.engine.batching import batch_key
from sglang_core.engine.in_process import Engine
from sglang_core.planning import plan_run, replan_requests
from sglang_core.testing import bare_manager, make_settings, no_op_plugin, write_tiny_pipeline
from sglang_plugins_builtin import media, model_sources


@frozen(kw_only=True)
class PaintOptions:
    """Paint."""

    paint: str = option(default="", help="The colour of the pipeline.")


class Paint:
    """Paints the pipeline before a run, and keeps a list of what it did."""

    name, order = "paint", 5

    def __init__(self):
        self.done = []

    def probe(self):
        return Availability.yes()

    def wanted(self, plan):
        return f"paint {colour}" if (colour := self.state_of(plan)) else None

    def apply(self, pipeline, plan):
        self.follow(pipeline, plan)

    def state_of(self, plan):
        return plan.settings.of(PaintOptions).paint

    def follow(self, pipeline, plan):
        colour = self.state_of(plan)
        if colour == "invisible":
            raise ValueError("there is no such paint")
        if colour != getattr(pipeline, "colour", ""):
            pipeline.colour = colour
            self.done.append(colour)

    def details(self, plan):
        return {"colour": self.state_of(plan)}


class PaintPlugin:
    def __init__(self):
        self.transform = Paint()

    @hookimpl
    def sglang_register_options(self):
        return [OptionGroup(name="paint", settings=PaintOptions, is_execution=True, is_per_request=True)]

    @hookimpl
    def sglang_register_pipeline_transforms(self, manager):
        self.manager = manager
        return [self.transform]


@pytest.fixture
def plugin():
    return PaintPlugin()


@pytest.fixture
def manager(plugin):
    manager = bare_manager(host_options=True)
    for module in (media, model_sources):
        manager.register(module, module.__name__.rpartition(".")[2])
    manager.register(no_op_plugin(), "no_op")
    manager.register(plugin, "paint")
    return manager


@pytest.fixture
def model(tmp_path):
    return str(write_tiny_pipeline(tmp_path / "tiny"))


@pytest.fixture
def planned(manager, model):
    """Return the plan for a colour of a model that was loaded without."""

    def planned(colour, **values):
        settings = make_settings(manager, model_path=model, prompt="a circle", **values)
        loaded = plan_run(manager, settings).plan
        return replan_requests(manager, loaded, settings.replace(paint=colour))

    return planned


def test_it_follows_every_request_of_a_loaded_model(manager, model, plugin, tmp_path):
    run = {"prompt": "a circle", "output_path": str(tmp_path / "out")}
    with Generator.from_pretrained(model, manager=manager, paint="red") as generator:
        receipts = [generator.generate(**run, **more).outputs[0].receipt["plan"] for more in ({}, {"paint": "blue"})]
        plain = generator.generate(**run, paint="").outputs[0].receipt["plan"]
        generator.generate(**run)

    assert plugin.transform.done == ["red", "blue", "", "red"]
    assert [receipt["transform_details"] for receipt in receipts] == [
        {"paint": {"colour": "red"}},
        {"paint": {"colour": "blue"}},
    ]
    assert [receipt["settings"]["paint"] for receipt in receipts] == ["red", "blue"]
    assert "transform_details" not in plain
    assert plain["transforms"] == []


def test_hook_gets_the_manager(manager, plugin):
    assert plugin.manager is manager


def test_plan_of_a_request_names_it(planned):
    assert [choice.reason for choice in planned("red").transforms] == ["paint red"]
    assert planned("").transforms == ()


def test_requests_that_ask_for_different_states_do_not_run_together(planned):
    assert batch_key(planned("red")) == batch_key(planned("red", seed=7))
    assert batch_key(planned("red")) != batch_key(planned("blue"))


def test_run_in_the_middle_of_another_leaves_the_state_of_that(manager, plugin, planned, tmp_path):
    outer, inner = planned("red"), planned("blue")
    engine = Engine.load(manager, outer, Path(outer.model.reference), StepControl())

    with engine.following(outer):
        with engine.following(inner):
            assert engine.state == engine.state_of(inner)
        assert engine.state == engine.state_of(outer)

    assert plugin.transform.done == ["red", "blue", "red"]


def test_state_that_can_not_be_is_one_sentence_and_changes_nothing(manager, plugin, planned):
    red, invisible = planned("red"), planned("invisible")
    engine = Engine.load(manager, red, Path(red.model.reference), StepControl())

    with pytest.raises(RequestError, match="failed: ValueError: there is no such paint"):
        engine.follow(invisible)

    assert engine.state == engine.state_of(red)
    engine.close()
    with pytest.raises(RequestError, match="the engine is closed"):
        engine.follow(red)
