"""Places to keep jobs: an SQLite database, or the memory of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .stores import MemoryJobStore, SqliteJobStore

if TYPE_CHECKING:
    from sglang_core import JobStore


@hookimpl
def sglang_register_job_stores() -> list[JobStore]:
    return [SqliteJobStore(), MemoryJobStore()]
