import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from attrs import frozen

from sglang_core import (
    Availability,
    Check,
    CheckResult,
    OptionGroup,
    PluginError,
    PluginManager,
    RunEnded,
    StepControl,
    create_plugin_manager,
    hookimpl,
    option,
)
from sglang_core.testing import MemoryResolver, NoOpBackend, bare_manager, no_op_plugin


def entry_point(name, module, tmp_path, monkeypatch, source):
    """Write a module and return an entry point that leads to it."""
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, module, raising=False)
    return EntryPoint(name=name, value=module, group="sglang.plugins")


HOOK = "from sglang_core import hookimpl\n"
BROKEN = {
    "import error": ("import no_such_package_at_all", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "misspelled": (
        f"{HOOK}@hookimpl\ndef sglang_register_comands(): return []",
        "there is no hook 'sglang_register_comands' (did you mean 'sglang_register_commands'?)",
    ),
    "wrong argument": (
        f"{HOOK}@hookimpl\ndef sglang_on_event(evnt): pass",
        "sglang_on_event: Argument(s) {'evnt'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "unmarked": ("def sglang_register_checks(): return []", "sglang_register_checks is not marked as a hook"),
    "raises": (f"{HOOK}@hookimpl\ndef sglang_register_checks(): raise ValueError('ouch')", "ValueError: ouch"),
    "no list": (
        f"{HOOK}@hookimpl\ndef sglang_register_checks(): return 5",
        "sglang_register_checks returned int, not a list",
    ),
    "no name": (
        f"{HOOK}@hookimpl\ndef sglang_register_checks(): return [5]",
        "sglang_register_checks returned int, which is no check: it has no name",
    ),
}


@pytest.mark.parametrize(("source", "problem"), BROKEN.values(), ids=BROKEN)
def test_broken_plugin_costs_only_itself(source, problem, tmp_path, monkeypatch):
    manager = bare_manager()
    broken = entry_point("broken", "broken_plugin", tmp_path, monkeypatch, source)

    record = manager.load_entry_point(broken)
    manager.register(no_op_plugin(), "no_op")

    assert manager.failures == (record,)
    assert "plugin 'broken'" in record.error.problem
    assert problem in record.error.problem
    assert "--disable-plugin broken" in record.error.remedy
    assert "no_op" in manager.execution_backends


def test_unmarked_hook_says_what_its_author_can_do(tmp_path, monkeypatch):
    source = "def sglang_register_checks(): return []"
    record = bare_manager().load_entry_point(entry_point("mine", "unmarked_plugin", tmp_path, monkeypatch, source))

    assert "put @hookimpl above sglang_register_checks" in record.error.remedy


def group(name="mine", **fields):
    """Return an option group with a text setting for each keyword; the values are arguments of ``option``."""
    namespace = {key: option(help="A setting.", default="", **details) for key, details in fields.items()}
    annotations = dict.fromkeys(fields, str)
    settings = frozen(kw_only=True)(type("Mine", (), {"__annotations__": annotations, **namespace}))
    return OptionGroup(name=name, settings=settings)


class Brings:
    """A plugin that brings what a test gives it."""

    def __init__(self, options=(), commands=(), encoders=(), resolvers=(), checks=(), backends=(), transforms=()):
        self.parts = options, commands, encoders, resolvers, checks, backends, transforms

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


class Encoder:
    kinds = ("image",)
    order = 1

    def __init__(self, name, *extensions):
        self.name = name
        self.extensions = extensions


class Transform:
    name = "faster"
    order = 1


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


@pytest.mark.parametrize("name", ["config", "print_config", "help", "disable_plugin"])
def test_flag_of_the_command_line_cannot_be_a_setting(name):
    with pytest.raises(PluginError, match="is taken by the command line itself") as refused:
        bare_manager().register(Brings(options=[group("mine", **{name: {}})]), "mine")

    assert "rename the setting" in refused.value.remedy


def test_alias_that_is_no_key_is_refused():
    with pytest.raises(TypeError, match="'my-colour' is no key; write it_like_this"):
        group("mine", colour={"aliases": ["my-colour"]})


class Distribution:
    """A distribution as importlib shows it."""

    def __init__(self, name):
        self.name = name

    def read_text(self, file):
        return f"Metadata-Version: 2.4\nName: {self.name}\nVersion: 2.0\n\nVersion: no header\n"


def of(distribution, name, module):
    point = EntryPoint(name=name, value=module, group="sglang.plugins")
    vars(point)["dist"] = Distribution(distribution)
    return point


def test_two_packages_with_one_plugin_name_are_both_shown(tmp_path, monkeypatch):
    entry_point("same", "first_module", tmp_path, monkeypatch, "")
    entry_point("same", "second_module", tmp_path, monkeypatch, "")
    manager = bare_manager()

    manager.load_entry_point(of("first", "same", "first_module"))
    manager.load_entry_point(of("second", "same", "second_module"))

    assert list(manager.records) == ["same", "same (second)"]
    refused = manager.records["same (second)"].error
    assert refused.problem == "plugin name 'same' of second is already taken by first"
    assert refused.remedy == "uninstall one of the two packages: first, second"


def test_stranger_that_claims_a_built_in_name_is_the_one_refused(tmp_path, monkeypatch):
    entry_point("media", "their_media", tmp_path, monkeypatch, "")
    from sglang_core import plugins

    theirs = of("aaa", "media", "their_media")
    installed = [theirs, *plugins.entry_points(group="sglang.plugins")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: installed)

    manager = create_plugin_manager()

    assert manager.records["media"].distribution == "sglang-plugins"
    assert "is already taken by sglang-plugins" in manager.records["media (aaa)"].error.problem


def test_disabled_plugin_is_not_imported(tmp_path, monkeypatch):
    manager = bare_manager()
    point = entry_point("loud", "loud_plugin", tmp_path, monkeypatch, "raise RuntimeError('imported')")

    record = manager.load_entry_point(point, is_disabled=True)

    assert record.is_disabled
    assert manager.failures == ()


def test_record_tells_hooks_contributions_and_load_time():
    manager = bare_manager()

    record = manager.register(no_op_plugin(name="mine"), "mine")

    assert record.hooks == ("sglang_register_execution_backends",)
    assert record.contributions == (("execution backend", "mine"),)
    assert record.load_ms > 0


def test_allow_list_keeps_built_ins_and_disables_other_packages(tmp_path, monkeypatch):
    from sglang_core import plugins

    entry_point("theirs", "their_plugin", tmp_path, monkeypatch, "")
    installed = [of("other", "theirs", "their_plugin"), *plugins.entry_points(group="sglang.plugins")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: installed)

    assert create_plugin_manager(allow={"nothing"}).records["theirs"].is_disabled
    assert not create_plugin_manager(allow={"theirs"}).records["theirs"].is_disabled
    assert not create_plugin_manager(allow={"nothing"}).records["commands"].is_disabled


class Deaf:
    @hookimpl
    def sglang_on_event(self, event):
        raise RuntimeError("deaf")


def test_listener_that_raises_is_dropped_and_the_others_are_told(caplog):
    manager = bare_manager()
    heard = []

    class Hears:
        @hookimpl
        def sglang_on_event(self, event):
            heard.append(event)

    manager.register(Hears(), "hears")
    manager.register(Deaf(), "deaf")
    control = StepControl(manager.listeners())

    for _ in range(2):
        control.emit(RunEnded(run_id="1", outcome="completed", duration_s=1.0))

    assert len(heard) == 2
    assert caplog.text.count("an event listener failed and is not called again in this run") == 1


def test_trace_shows_each_hook_call_on_stderr(monkeypatch, capsys):
    monkeypatch.setenv("SGLANG_TRACE_PLUGINS", "1")
    manager = PluginManager()

    manager.register(no_op_plugin(), "no_op")
    StepControl(manager.listeners()).emit(RunEnded(run_id="1", outcome="completed", duration_s=1.0))

    assert capsys.readouterr().err.splitlines() == [
        "sglang hook: sglang_register_execution_backends() asks no_op",
        "sglang hook: sglang_register_execution_backends returned NoOpBackend no_op",
    ]


def test_unavailable_says_why():
    assert Availability.no("no driver", "install it") == Availability(False, "no driver", "install it")
