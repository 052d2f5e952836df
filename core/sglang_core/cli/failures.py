"""What the user is told when a command fails: a sentence and a remedy, and an object for ``--json``."""

import json
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import click

from ..errors import SglangError
from ..plugins import PluginManager
from .exit_codes import EXIT_INTERNAL, exit_code

_TRUE = frozenset({"true", "1", "yes", "on"})


def report(error: SglangError, words: Sequence[str], manager: PluginManager | None) -> int:
    """Tell the user what went wrong, on stderr, and for ``--json`` as an object on stdout too; return the exit code.

    :param words: the command line.
    :param manager: the plugins, if it came so far.
    """
    code = exit_code(error)
    click.echo(f"sglang: {error.problem}\nTry: {error.remedy}", err=True)
    if wants_json(words, manager):
        _answer(type(error).__name__, error.problem, error.remedy, code)
    if _is_debugging():
        traceback.print_exc()
    return code


def report_defect(error: Exception, words: Sequence[str], manager: PluginManager | None) -> int:
    """Tell the user of what is no mistake of theirs; return the exit code."""
    if _is_debugging():
        traceback.print_exc()
    text = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    problem = f"this should not happen: {message}"
    remedy = "run it again with SGLANG_DEBUG=1 to see where, and report it"
    click.echo(f"sglang: {problem}\nTry: {remedy}", err=True)
    if wants_json(words, manager):
        _answer(type(error).__name__, problem, remedy, EXIT_INTERNAL)
    return EXIT_INTERNAL


def _answer(kind: str, problem: str, remedy: str, code: int) -> None:
    click.echo(json.dumps({"error": {"type": kind, "problem": problem, "remedy": remedy, "exit_code": code}}))


def _is_debugging() -> bool:
    return os.environ.get("SGLANG_DEBUG") == "1"


def wants_json(words: Sequence[str], manager: PluginManager | None) -> bool:
    """Say whether a command line asks for JSON, by its flag or in its configuration file.

    The words and the file are looked at, not the settings: what failed may be the reading of those.
    """
    flags = list(_values("--json", words))
    if flags:
        return flags[-1] is None or flags[-1].lower() != "false"
    files = [path for path in _values("--config", words) if path]
    if manager is None or not files or manager.options.find("json", manager.options.for_command(words[0])) is None:
        return False
    from ..options.sources import read_config_file  # only where a command failed

    with suppress(Exception):  # the file may be what failed; one message is enough
        entries = read_config_file(Path(files[-1]))
        return any(entry.key == "json" and str(entry.value).lower() in _TRUE for entry in entries)
    return False


def _values(flag: str, words: Sequence[str]) -> Iterator[str | None]:
    """Yield the value of each time a flag is given, ``None`` where no word follows it."""
    for word, following in zip_longest(words, words[1:]):
        name, separator, attached = word.partition("=")
        if name == flag:
            yield attached if separator else following
