"""The processes behind ``sglang serve``: how they are started, and the settings of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import EngineOptions, OptionGroup, hookimpl

from .spawn import SpawnLauncher

if TYPE_CHECKING:
    from sglang_core import Launcher


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add ``--launcher``, batching, the queue's limits and the time limits of the model's processes."""
    return [OptionGroup(name="engine", settings=EngineOptions, commands=("serve",), ignored_by=("generate", "explain"))]


@hookimpl
def sglang_register_launchers() -> list[Launcher]:
    return [SpawnLauncher()]
