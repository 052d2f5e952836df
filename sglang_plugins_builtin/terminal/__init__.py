"""What a person sees of a run: progress, a line for each result, a preview of the picture."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sglang_core import OptionGroup, hookimpl

from .config import TerminalOptions

if TYPE_CHECKING:
    from sglang_core import Event

    from .listener import RunWatcher


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add ``--quiet``, ``--json`` and ``--show``."""
    return [OptionGroup(name="terminal", settings=TerminalOptions, commands=("generate",), ignored_by=("explain",))]


@hookimpl
def sglang_on_event(event: Event) -> None:
    """Show what happens in a run."""
    _watcher().tell(event)


@cache
def _watcher() -> RunWatcher:
    from .listener import RunWatcher  # the events, which --help has none of

    return RunWatcher()
