"""What the pages show is tried: Python runs, files load, commands parse, and where output is shown it is compared."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from page_blocks import ROOT, blocks

from sglang_core import ConfigError
from sglang_core.cli import SettingsCommand, create_cli
from sglang_core.cli.settings_command import merge_settings

OTHER_PROGRAMS = {".", "eval", "git", "pip", "python", "python3", "sphinx-build", "towncrier", "tox"}
RUN_BLOCKS = [block for block in blocks("console") if "run" in block.marks]
SHOWN_FILES = {block.file_name: block.text for block in blocks("yaml", "json") if block.file_name}


@pytest.mark.parametrize("block", [block.as_parameter() for block in blocks("python")])
def test_python_block_runs(block, tmp_path):
    script = tmp_path / "block.py"
    script.write_text(block.text, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=_environment(tmp_path), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "block", [block.as_parameter() for block in blocks("yaml", "json") if "not settings" not in block.note]
)
def test_configuration_block_loads(block, documented_plugins, tmp_path):
    path = tmp_path / f"config.{block.language}"
    path.write_text(block.text, encoding="utf-8")

    if "wrong" in block.marks:
        with pytest.raises(ConfigError):
            merge_settings(documented_plugins, "generate", [], path)
    else:
        assert merge_settings(documented_plugins, "generate", [], path).origins


def console_commands():
    """Yield every command of every console block, its continued lines joined."""
    for block in blocks("console"):
        joined = re.sub(r"\\\n\s*", "", block.text)
        for number, line in enumerate(line for line in joined.splitlines() if line.startswith("$ ")):
            yield pytest.param(line.removeprefix("$ "), id=f"{block.id}#{number}")


@pytest.mark.parametrize("line", list(console_commands()))
def test_command_parses(line, documented_plugins):
    for words in _simple_commands(line):
        program = Path(words[0]).name if "/" in words[0] else words[0]
        if program == "sglang":
            _parse(documented_plugins, words[1:])
            continue
        assert program in OTHER_PROGRAMS
        for word in words[1:]:
            if word.startswith(("./", "docs/", "constraints", "plugins/")):
                assert (ROOT / word).exists()


def _simple_commands(line):
    """Yield the words of each command of a shell line, those in ``$(...)`` too, without redirections and variables."""
    for inner in re.findall(r"\$\(([^)]*)\)", line):
        yield from _simple_commands(inner)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, "&&"]:
        if set(token) <= set("|&;>"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"[A-Z_]+=", token):
            words.append(token)


def _parse(manager, words):
    """Read the words as ``sglang`` does, without running the command."""
    if not words or words[0].startswith("-"):
        with pytest.raises(click.exceptions.Exit):
            create_cli(manager).make_context("sglang", list(words), obj=manager)
        return
    context = click.Context(create_cli(manager), info_name="sglang", obj=manager)
    command = manager.commands.get(words[0])
    words = words[1:]
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=command.name, parent=context)
        command, words = command.commands[words[0]], words[1:]
    try:
        parsed = command.make_context(command.name, list(words), parent=context)
    except click.exceptions.Exit:  # --help
        return
    except ConfigError as error:
        if "unknown option --wdith" in error.problem:  # the page shows what becomes of it
            return
        raise
    if isinstance(command, SettingsCommand):
        merge_settings(manager, command.name, parsed.meta["sglang.givens"], None)
        config = parsed.meta["config"]
        assert config is None or config.name in SHOWN_FILES


@pytest.mark.parametrize("block", [block.as_parameter() for block in RUN_BLOCKS])
def test_shown_output_is_what_is_printed(block, tmp_path):
    for name, text in SHOWN_FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command, _, expected = block.text.removeprefix("$ ").partition("\n")

    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(expected, done.stdout, flags), done.stdout


def _environment(home):
    """This environment, without what a reader need not have, and without network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "HF_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "120"}
