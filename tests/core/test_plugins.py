"""Plugins are found, loaded, quarantined, traced, and told of events."""

import sys
from importlib.metadata import EntryPoint

import pytest

from sglang_core import PluginManager, RunEnded, StepControl, create_plugin_manager, hookimpl
from sglang_core.testing import bare_manager, no_op_plugin


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
        "sglang hook: sglang_register_execution_backends(manager=PluginManager) asks no_op",
        "sglang hook: sglang_register_execution_backends returned NoOpBackend no_op",
    ]
