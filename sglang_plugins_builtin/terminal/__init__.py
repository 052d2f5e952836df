"""What a person sees of a run: progress, a line for each result, a preview of the picture."""

from sglang_core import Event, OptionGroup, hookimpl

from .config import TerminalOptions
from .listener import RunWatcher

_watcher = RunWatcher()


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add ``--quiet``, ``--json`` and ``--show``."""
    return [OptionGroup(name="terminal", settings=TerminalOptions, commands=("generate",))]


@hookimpl
def sglang_on_event(event: Event) -> None:
    """Show what happens in a run."""
    _watcher.tell(event)
