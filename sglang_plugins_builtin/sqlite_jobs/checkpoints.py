"""Writing the log of a database back into it, beside those who use it."""

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

#: A job takes about three, so that one job in some hundreds shares the disk with this; the log grows to about 20 MB.
_COMMITS_BETWEEN = 1000


class Checkpoints:
    """Writes the log back every thousand transactions, in a thread and over a connection of its own.

    SQLite would do so within the transaction that fills the log, and wait for the disk: one job in a hundred would take
    a quarter of a second. From another connection it disturbs nobody, and what it does not manage is left to the next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_commits = 0
        self._is_wanted = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def note_commit(self) -> None:
        """Count a transaction; called by one thread at a time."""
        self._num_commits += 1
        if self._num_commits < _COMMITS_BETWEEN:
            return
        self._num_commits = 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
            self._thread.start()
        self._is_wanted.set()

    def close(self) -> None:
        """Wait for what is going on, and do no more."""
        self._is_closing = True
        self._is_wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._is_wanted.wait()
            self._is_wanted.clear()
            if self._is_closing:
                return
            try:
                with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                logger.debug("the log of %s is not written back yet: %s", self._path, error)
