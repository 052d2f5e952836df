"""Where the time of a run goes: a report in JSON, a log line for each stage, a trace of torch's profiler."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sglang_core import OptionGroup, hookimpl

from .config import PerformanceOptions

if TYPE_CHECKING:
    from sglang_core import Event

    from .listener import PerformanceWatcher


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add ``--perf-dump-path``, ``--stage-logging`` and ``--profile`` with its companions."""
    commands = ("generate", "serve")
    return [
        OptionGroup(name="performance", settings=PerformanceOptions, commands=commands, ignored_by=("explain",)),
    ]


@hookimpl
def sglang_on_event(event: Event) -> None:
    """Measure what happens in a run."""
    _watcher().tell(event)


@cache
def _watcher() -> PerformanceWatcher:
    from .listener import PerformanceWatcher  # the events, which --help has none of

    return PerformanceWatcher()
