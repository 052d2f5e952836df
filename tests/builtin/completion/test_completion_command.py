"""``sglang completion`` and the completion it switches on, in a real process."""

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from sglang_core.cli.app import create_cli
from sglang_core.plugins import PluginManager
from sglang_plugins_builtin import completion, doctor

PROGRAM = """
from sglang_core.cli.app import create_cli
from sglang_core.plugins import PluginManager
from sglang_core.cli.settings_command import SettingsCommand
from sglang_core import hookimpl
import click
from sglang_plugins_builtin import completion, doctor, terminal

class Generate:
    @hookimpl
    def sglang_register_commands(self):
        return [click.command("generate", cls=SettingsCommand)(lambda: None)]

manager = PluginManager()
for name, plugin in {"completion": completion, "doctor": doctor, "terminal": terminal, "generate": Generate()}.items():
    manager.register(plugin, name)
create_cli(manager).main(prog_name="sglang", obj=manager)
"""


def run_completion(*words: str) -> Result:
    manager = PluginManager()
    manager.register(completion, "completion")
    manager.register(doctor, "doctor")
    return CliRunner().invoke(create_cli(manager), ["completion", *words], obj=manager, prog_name="sglang")


def complete(words: str) -> list[str]:
    """Return what bash would offer for the last word."""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "_SGLANG_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environ)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sglang do", ["doctor"]),
        ("sglang completion ", ["bash", "zsh", "fish"]),
        ("sglang doctor --j", ["--json"]),
        ("sglang generate --qu", ["--quiet"]),
        ("sglang generate --quiet --sho", ["--show"]),
    ],
)
def test_tab_offers_commands_options_and_values(words: str, offered: list[str]) -> None:
    assert complete(words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_for_the_shell_and_this_program(shell: str) -> None:
    result = run_completion(shell)

    assert result.exit_code == 0
    assert f"_SGLANG_COMPLETE={shell}_complete" in result.stdout
    assert "%(" not in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_accepts_its_script() -> None:
    script = run_completion("bash").stdout + "\ncomplete -p sglang\n"

    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)

    assert "sglang" in done.stdout
    assert done.stderr == ""


def test_help_says_where_each_script_goes() -> None:
    result = run_completion("--help")

    for line in ('eval "$(sglang completion bash)"', 'eval "$(sglang completion zsh)"', "~/.config/fish/completions"):
        assert line in result.output


def test_unknown_shell_is_refused_with_the_choices() -> None:
    result = run_completion("tcsh")

    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.output
