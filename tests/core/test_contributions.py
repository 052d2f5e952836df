"""What plugins contribute: each name is claimed once, and a plugin that claims a second time brings nothing."""

from pathlib import Path

import click
import pytest
from attrs import frozen

from sglang_core import Check, CheckResult, OptionGroup, PluginError, hookimpl, option
from sglang_core.testing import MemoryResolver, NoOpBackend, bare_manager


def group(name="mine", **fields):
    """Return an option group with a text setting for each keyword; the values are arguments of ``option``."""
    namespace = {key: option(help="A setting.", default="", **details) for key, details in fields.items()}
    annotations = dict.fromkeys(fields, str)
    settings = frozen(kw_only=True)(type("Mine", (), {"__annotations__": annotations, **namespace}))
    return OptionGroup(name=name, settings=settings)


class Brings:
    """A plugin that brings what a test gives it."""

    def __init__(
        self,
        options=(),
        commands=(),
        encoders=(),
        resolvers=(),
        checks=(),
        backends=(),
        transforms=(),
        families=(),
        attention=(),
    ):
        self.parts = options, commands, encoders, resolvers, checks, backends, transforms, families, attention

    @hookimpl
    def sglang_register_options(self):
        return list(self.parts[0])

    @hookimpl
    def sglang_register_commands(self):
        return list(self.parts[1])

    @hookimpl
    def sglang_register_media_encoders(self):
        return list(self.parts[2])

    @hookimpl
    def sglang_register_model_resolvers(self):
        return list(self.parts[3])

    @hookimpl
    def sglang_register_checks(self):
        return list(self.parts[4])

    @hookimpl
    def sglang_register_execution_backends(self):
        return list(self.parts[5])

    @hookimpl
    def sglang_register_pipeline_transforms(self):
        return list(self.parts[6])

    @hookimpl
    def sglang_register_model_families(self):
        return list(self.parts[7])

    @hookimpl
    def sglang_register_attention_backends(self):
        return list(self.parts[8])


class Encoder:
    kinds = ("image",)
    order = 1

    def __init__(self, name, *extensions):
        self.name = name
        self.extensions = extensions


class Transform:
    name = "faster"
    order = 1


class Family:
    def __init__(self, name, *pipeline_classes):
        self.name = name
        self.pipeline_classes = pipeline_classes


class AttentionBackend:
    order = 1

    def __init__(self, name, *aliases):
        self.name = name
        self.aliases = aliases


def check(name):
    return Check(name=name, run=lambda: CheckResult(status="ok", message="fine"))


TAKEN = {
    "flag": ({"options": [group("a", colour={})]}, {"options": [group("b", colour={})]}, "--colour (colour)"),
    "alias": (
        {"options": [group("a", colour={"aliases": ["hue"]})]},
        {"options": [group("b", hue={})]},
        "--hue (hue)",
    ),
    "variable": (
        {"options": [group("a", colour={"env": "COLOUR"})]},
        {"options": [group("b", hue={"env": "COLOUR"})]},
        "the variable COLOUR",
    ),
    "pattern": (
        {"options": [group("a", colour={"pattern": "{key}_colour"})]},
        {"options": [group("b", hue={"pattern": "{key}_colour"})]},
        "the pattern --{key}-colour",
    ),
    "negative flag": (
        {"options": [group("a", colour={"negative_flag": True})]},
        {"options": [group("b", no_colour={})]},
        "--no-colour (no_colour)",
    ),
    "group": ({"options": [group("a", x={})]}, {"options": [group("a", y={})]}, "the option group 'a'"),
    "command": ({"commands": [click.Command("paint")]}, {"commands": [click.Command("paint")]}, "command 'paint'"),
    "backend": (
        {"backends": [NoOpBackend(name="mine")]},
        {"backends": [NoOpBackend(name="mine")]},
        "execution backend 'mine'",
    ),
    "encoder": ({"encoders": [Encoder("tga")]}, {"encoders": [Encoder("tga")]}, "media encoder 'tga'"),
    "extension": (
        {"encoders": [Encoder("one", "tga")]},
        {"encoders": [Encoder("two", "x", "tga")]},
        "media encoder '.tga'",
    ),
    "resolver": (
        {"resolvers": [MemoryResolver({}, Path())]},
        {"resolvers": [MemoryResolver({}, Path())]},
        "model resolver 'memory'",
    ),
    "check": ({"checks": [check("disk")]}, {"checks": [check("disk")]}, "check 'disk'"),
    "transform": ({"transforms": [Transform()]}, {"transforms": [Transform()]}, "pipeline transform 'faster'"),
    "family": (
        {"families": [Family("waves", "WavePipeline")]},
        {"families": [Family("waves", "RipplePipeline")]},
        "model family 'waves'",
    ),
    "pipeline class": (
        {"families": [Family("waves", "WavePipeline")]},
        {"families": [Family("ripples", "RipplePipeline", "WavePipeline")]},
        "model family 'WavePipeline'",
    ),
    "attention": (
        {"attention": [AttentionBackend("quick")]},
        {"attention": [AttentionBackend("quick")]},
        "attention backend 'quick'",
    ),
    "attention alias": (
        {"attention": [AttentionBackend("quick", "q")]},
        {"attention": [AttentionBackend("quicker", "q")]},
        "attention backend 'q'",
    ),
    "name that is another's alias": (
        {"attention": [AttentionBackend("quick", "q")]},
        {"attention": [AttentionBackend("q")]},
        "attention backend 'q'",
    ),
}


@pytest.mark.parametrize(("first", "second", "what"), TAKEN.values(), ids=TAKEN)
def test_second_claim_of_a_name_is_refused_and_names_both(first, second, what):
    manager = bare_manager()
    manager.register(Brings(**first), "one")

    with pytest.raises(PluginError) as refused:
        manager.register(Brings(**second), "two")

    assert what in refused.value.problem
    assert "of plugin two" in refused.value.problem
    assert "already taken by plugin one" in refused.value.problem
    assert "--disable-plugin two" in refused.value.remedy
    assert list(manager.records) == ["one"]


def test_refused_plugin_leaves_nothing_behind():
    manager = bare_manager()
    manager.register(Brings(checks=[check("disk")]), "one")
    bad = Brings(options=[group("mine", colour={"env": "COLOUR"})], encoders=[Encoder("tga")], checks=[check("disk")])

    with pytest.raises(PluginError):
        manager.register(bad, "two")
    manager.register(Brings(options=[group("mine", colour={"env": "COLOUR"})], encoders=[Encoder("tga")]), "three")

    assert manager.records["three"].error is None


def test_refused_family_or_attention_takes_nothing_with_it():
    manager = bare_manager()
    manager.register(
        Brings(families=[Family("waves", "WavePipeline")], attention=[AttentionBackend("quick", "q")]), "one"
    )
    bad = Brings(
        families=[Family("ripples", "RipplePipeline")], attention=[AttentionBackend("slow"), AttentionBackend("q")]
    )

    with pytest.raises(PluginError):
        manager.register(bad, "two")

    assert [family.name for family in manager.model_families] == ["waves"]
    assert "RipplePipeline" not in manager.model_families
    assert [backend.name for backend in manager.attention_backends] == ["quick"]


def test_family_is_found_by_its_pipeline_class_even_if_that_is_its_name():
    manager = bare_manager()
    waves, ripple = Family("waves", "WavePipeline", "WaveVideoPipeline"), Family("RipplePipeline", "RipplePipeline")

    manager.register(Brings(families=[waves, ripple]), "one")

    assert manager.model_families.get("WaveVideoPipeline") is waves
    assert manager.model_families.get("RipplePipeline") is ripple
    assert len(manager.model_families) == 2


def test_each_register_hook_is_called_once():
    calls = []

    class Counts:
        @hookimpl
        def sglang_register_model_families(self):
            calls.append("families")
            return [Family("waves")]

        @hookimpl
        def sglang_register_attention_backends(self):
            calls.append("attention")
            return [AttentionBackend("quick")]

        @hookimpl
        def sglang_register_execution_backends(self, manager):
            calls.append(manager)
            return []

    manager = bare_manager()
    manager.register(Counts(), "counts")
    manager.register(Brings(families=[Family("ripples")]), "other")

    assert sorted(calls, key=str) == sorted(["families", "attention", manager], key=str)


@pytest.mark.parametrize("name", ["config", "print_config", "help", "disable_plugin"])
def test_flag_of_the_command_line_cannot_be_a_setting(name):
    with pytest.raises(PluginError, match="is taken by the command line itself") as refused:
        bare_manager().register(Brings(options=[group("mine", **{name: {}})]), "mine")

    assert "rename the setting" in refused.value.remedy


def test_alias_that_is_no_key_is_refused():
    with pytest.raises(TypeError, match="'my-colour' is no key; write it_like_this"):
        group("mine", colour={"aliases": ["my-colour"]})
