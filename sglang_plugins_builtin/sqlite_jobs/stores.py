"""The two kinds of stores; what they open is imported when it is opened."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import Availability

if TYPE_CHECKING:
    from sglang_core import OpenJobStore


class SqliteJobStore:
    """Jobs in a database file, which outlive the server and the machine's crash."""

    name = "sqlite"
    is_durable = True

    def probe(self) -> Availability:
        """See that this Python has what it takes; some distributions split SQLite off."""
        for module in ("_sqlite3", "fcntl"):
            if importlib.util.find_spec(module) is None:
                return Availability.no(f"this Python has no module {module}", "use --job-store memory")
        return Availability.yes()

    def open(self, location: Path) -> OpenJobStore:
        """Open or create ``jobs.sqlite3`` in the folder ``location``."""
        from .database import SqliteJobs  # sqlite3

        return SqliteJobs(location)


class MemoryJobStore:
    """Jobs in the memory of the server, gone when it ends."""

    name = "memory"
    is_durable = False

    def probe(self) -> Availability:
        """Say yes: memory there is."""
        return Availability.yes()

    def open(self, location: Path) -> OpenJobStore:
        """Return an empty store; ``location`` stays as it is."""
        from .memory import MemoryJobs  # with the records, which --help has no use for

        return MemoryJobs()
