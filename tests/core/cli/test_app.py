"""The ``sglang`` command, in this process unless a process is what matters."""

import json
import os
import subprocess
import sys

import click
import pytest

from sglang_core import (
    ConfigError,
    DeadlineExceededError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfDeviceMemoryError,
    OutputError,
    PluginError,
    RequestCancelledError,
    RequestError,
    UnavailableError,
    hookimpl,
)

HEAVY = (
    *("torch", "diffusers", "transformers", "starlette", "hypercorn", "accelerate", "numpy"),
    *("PIL", "av", "rich", "huggingface_hub", "cattrs", "ruamel"),
)
PROBE = """
import sys
from sglang_core.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*(name for name in %r if name in sys.modules), file=sys.stderr)
"""


def run_python(source, *words, cwd=None, **env):
    environment = {**os.environ, **env}
    return subprocess.run(
        [sys.executable, "-c", source, *words], capture_output=True, text=True, env=environment, timeout=60, cwd=cwd
    )


@pytest.mark.parametrize("words", [["--help"], ["plugins", "list"], ["generate", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    done = run_python(PROBE % (HEAVY,), *words)

    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == []


#: Modules outside ``options`` and ``config`` whose attrs classes ``--help`` builds: half a millisecond for each class.
HELP_BUILDS = {
    *("sglang_core.attention", "sglang_core.checks", "sglang_core.cli.flags"),
    *("sglang_core.plugins", "sglang_core.registry"),
    *("sglang_plugins_builtin.attention.backends", "sglang_plugins_builtin.attention.flash_versions"),
    "sglang_plugins_builtin.media.libraries",
}
BUILT = """
import sys
from sglang_core.cli import main
main(["--help"], standalone_mode=False)
for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in {packages!r}]:
    if any("__attrs_attrs__" in vars(value) for value in vars(module).values()
           if isinstance(value, type) and value.__module__ == module.__name__):
        print(module.__name__, file=sys.stderr)
"""


def test_help_builds_settings_and_little_else():
    done = run_python(BUILT.format(packages={"sglang_core", "sglang_plugins_builtin"}))

    assert done.returncode == 0, done.stderr
    built = {name for name in done.stderr.split() if "options" not in name.split(".") and not name.endswith(".config")}
    assert built <= HELP_BUILDS


def test_help_imports_nothing_of_a_run():
    run = ("backends", "engine", "events", "families", "models", "planning_types", "requests")
    later = (*(f"sglang_core.{name}" for name in run), "difflib", "ctypes", "sqlite3")

    done = run_python(PROBE % (later,), "--help")

    assert done.stderr.split() == []


def test_explain_imports_no_engine(tiny_model, tmp_path):
    words = ["explain", "--model-path", str(tiny_model), "--offline", "--json"]

    done = run_python(PROBE % (("torch", "diffusers", "transformers", "PIL", "av", "rich"),), *words, cwd=tmp_path)

    assert done.stderr.splitlines()[-1].split() == []


def test_process_shows_hook_calls_when_asked():
    done = run_python("from sglang_core.cli import main; main()", "plugins", "list", SGLANG_TRACE_PLUGINS="1")

    assert "sglang hook: sglang_register_commands() asks commands\n" in done.stderr
    assert "sglang hook: sglang_register_commands returned SettingsCommand generate, " in done.stderr
    assert "sglang hook" not in done.stdout


def test_reader_that_goes_away_is_no_error():
    source = "import sys; from sglang_core.cli import main; main(['generate', '--help'])"

    done = subprocess.run(
        ["/bin/sh", "-c", f'{sys.executable} -c "$0" | head -1', source], capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "Usage: sglang generate [OPTIONS]\n"
    assert done.stderr == ""


def test_variables_choose_plugins():
    words = ("plugins", "list", "--json")

    done = run_python(
        "from sglang_core.cli import main; main()",
        *words,
        SGLANG_DISABLE_PLUGINS="media, nobody",
        SGLANG_PLUGINS="stranger",
    )

    states = {plugin["name"]: plugin["state"] for plugin in json.loads(done.stdout)["plugins"]}
    assert states["media"] == "disabled"
    assert states["commands"] == "ok"
    assert "not installed: nobody, stranger" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--disable-plugin", "media", "plugins", "list", "--json"],
        ["plugins", "--disable-plugin=media", "list", "--json"],
        ["plugins", "list", "--json", "--disable_plugin", "media"],
    ],
    ids=" ".join,
)
def test_plugin_is_disabled_anywhere_on_the_line(words, monkeypatch, capsys):
    from sglang_core.cli import main

    with pytest.raises(SystemExit):
        main(words)

    states = {plugin["name"]: plugin["state"] for plugin in json.loads(capsys.readouterr().out)["plugins"]}
    assert states["media"] == "disabled"


WRONG = [
    (["genrate"], "unknown command 'genrate'", "sglang generate"),
    (["zzz"], "unknown command 'zzz'", "sglang --help lists the commands"),
    (["--versoin"], "No such option '--versoin'", "see --help"),
    (["generate", "--promt", "a"], "unknown option --promt", "use --prompt"),
    (["serve", "--seed", "5"], "--seed does not apply: it is an option of generate, explain", "leave it out"),
    (["generate", "stray"], "unexpected extra argument", "see --help"),
    (["generate", "--config"], "Option '--config' requires an argument", "see --help"),
    (["generate", "--config", "none.yaml"], "--config none.yaml: there is no such file", "check the path"),
    (["--disable-plugin"], "--disable-plugin needs a value", "name the plugin"),
    (["--disable-plugin", "medai", "plugins", "list"], "no plugin of that name is installed", "--disable-plugin media"),
    (["plugins", "show", "medai"], "no plugin 'medai' is installed", "sglang plugins show media"),
    (["plugins", "show"], "Missing argument 'NAME'", "see --help"),
]


@pytest.mark.parametrize(("words", "problem", "remedy"), WRONG, ids=[" ".join(words) for words, _, _ in WRONG])
def test_wrong_command_line_is_one_sentence_and_a_remedy(words, problem, remedy, sglang):
    done = sglang(*words)

    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("sglang: ")
    assert problem in done.err.replace("\u2018", "'").replace("\u2019", "'")
    assert f"Try: {remedy}" in done.err
    assert "Traceback" not in done.err


def test_group_without_command_shows_its_help(sglang):
    assert sglang().out.startswith("Usage: sglang ")
    assert sglang("plugins").out.startswith("Usage: sglang plugins ")
    assert sglang("plugins").code == 0


EXITS = [
    (ConfigError("p", "r"), 2),
    (RequestError("p", "r"), 2),
    (PluginError("p", "r"), 3),
    (ModelNotFoundError("p", "r"), 4),
    (ModelLoadError("p", "r"), 4),
    (UnavailableError("p", "r"), 5),
    (OutOfDeviceMemoryError("p", "r"), 6),
    (OutputError("p", "r"), 7),
    (DeadlineExceededError("p", "r"), 124),
    (RequestCancelledError("p", "r"), 130),
]


class Fails:
    """A plugin with a command that raises."""

    def __init__(self, error):
        self.error = error

    @hookimpl
    def sglang_register_commands(self):
        @click.command("fail")
        @click.option("--json", is_flag=True)
        def fail(json):
            raise self.error

        return [fail]


@pytest.mark.parametrize(("error", "code"), EXITS, ids=[type(error).__name__ for error, _ in EXITS])
def test_exit_code_tells_the_kind_of_error(error, code, sglang, no_op_manager):
    no_op_manager.register(Fails(error), "fails")

    done = sglang("fail", "--json")

    assert done.code == code
    assert done.err == "sglang: p\nTry: r\n"
    answer = {"type": type(error).__name__, "problem": "p", "remedy": "r", "exit_code": code}
    assert json.loads(done.out) == {"error": answer}


def test_ctrl_c_at_any_time_exits_130(sglang, no_op_manager):
    no_op_manager.register(Fails(KeyboardInterrupt()), "fails")

    done = sglang("fail")

    assert done == (130, "", "\nsglang: cancelled\nTry: run the command again\n")  # behind the terminal's ^C


def test_defect_is_one_line_and_says_how_to_see_more(sglang, no_op_manager, monkeypatch):
    no_op_manager.register(Fails(ZeroDivisionError("by\nzero")), "fails")

    done = sglang("fail")
    monkeypatch.setenv("SGLANG_DEBUG", "1")
    with_debug = sglang("fail")

    assert done.code == 1
    assert done.err.splitlines()[0] == "sglang: this should not happen: ZeroDivisionError: by"
    assert "SGLANG_DEBUG=1" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in with_debug.err
    error = json.loads(sglang("fail", "--json").out)["error"]
    assert error["problem"] == "this should not happen: ZeroDivisionError: by"
    assert error["exit_code"] == 1


def test_quarantined_plugin_is_shown_everywhere_and_stops_nothing(sglang, no_op_manager):
    from importlib.metadata import EntryPoint

    no_op_manager.load_entry_point(EntryPoint(name="broken", value="no_such_module_here", group="sglang.plugins"))

    assert "Not loaded: plugin 'broken'" in " ".join(sglang("--help").out.split())
    assert "(plugins that did not load: broken; see 'sglang plugins list')" in sglang("brokencommand").err
    assert "(plugins that did not load: broken;" in sglang("generate", "--broken-flag").err
    listed = sglang("plugins", "list")
    assert listed.code == 0
    assert "No module named 'no_such_module_here'" in listed.out
    assert "--disable-plugin broken" in listed.out
    shown = json.loads(sglang("plugins", "show", "broken", "--json").out)
    assert shown["state"] == "failed"
    assert "no_such_module_here" in shown["error"]["problem"]


def test_plugin_is_shown_with_everything_it_brings(sglang):
    shown = sglang("plugins", "show", "commands").out

    assert "hooks      sglang_register_commands, sglang_register_options" in shown
    assert "command: generate" in shown
    assert "--hf-token (hf_token, HF_TOKEN)  Access token for the hub." in shown


def test_settings_are_printed_and_nothing_runs(sglang, tmp_path):
    done = sglang("generate", "--print_config", "--width=64", "--prompt", "a", "--output-path", tmp_path / "out")

    assert done.code == 0
    assert "width: 64  # --width" in done.out
    assert not (tmp_path / "out").exists()


def test_version_is_printed(sglang):
    assert sglang("--version").out.startswith("sglang ")
