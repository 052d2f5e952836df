"""Jobs in an SQLite database: one file, one writer, whole transactions.

The journal is a write-ahead log. A transaction is written to it before a method returns, so it outlives the process;
``synchronous=NORMAL`` does not wait for the disk with every transaction, which would cost milliseconds for each change
of a job, and several of them. :meth:`SqliteJobs.flush` waits for the disk, once for all that happened before. Either
way the file is consistent after a loss of power: SQLite ignores an incomplete end of the log.
"""

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from sglang_core import ConflictError, Job, JobQuery, JobStatus, OutputError, check_change, job_from_json

from .checkpoints import Checkpoints
from .failures import store_error
from .locking import StoreLock

SCHEMA_VERSION = 1
#: Marks the file as ours, in its header ("SGLJ").
APPLICATION_ID = 0x53474C4A
FILE_NAME = "jobs.sqlite3"
#: How long to wait for another program that has the database locked.
LOCK_TIMEOUT_S = 5.0
#: Pages of 4 KiB in the log after which a transaction writes it back itself: 80 MB, which only a broken disk lets come.
_MOST_LOG_PAGES = 20_000

_SCHEMA = """
CREATE TABLE store (identity TEXT NOT NULL, created_at REAL NOT NULL);
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    kind TEXT NOT NULL,
    owner TEXT,
    idempotency_key TEXT,
    status TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX jobs_by_time ON jobs (created_at, sequence);
CREATE INDEX jobs_by_status ON jobs (status, created_at, sequence);
CREATE INDEX jobs_by_owner ON jobs (owner, created_at, sequence);
CREATE INDEX jobs_by_key ON jobs (idempotency_key, owner) WHERE idempotency_key IS NOT NULL;
"""


class SqliteJobs:
    """An open database of jobs.

    :param location: its folder, created if it is missing.
    :raises OutputError: if it cannot be opened, is damaged, of a newer version, or another server has it.
    """

    def __init__(self, location: Path) -> None:
        self.path = location / FILE_NAME
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._log: int | None = None
        self._checkpoints = Checkpoints(self.path)
        #: Held while the log is flushed, which other methods need not wait for.
        self._log_mutex = threading.Lock()
        try:
            location.mkdir(parents=True, exist_ok=True)
            self._lock = StoreLock(location)
        except OSError as error:
            raise store_error(location, error) from error
        try:
            with self._translated():
                self._open()
        except BaseException:
            self._release()
            self._lock.release(is_clean=not self._lock.was_left)
            raise

    def _open(self) -> None:
        connection = sqlite3.connect(
            self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        self._connection = connection
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if num_tables and (application != APPLICATION_ID or version < 1):
            raise OutputError(f"{str(self.path)!r} is not a job store", "choose another folder with --job-store-path")
        if version > SCHEMA_VERSION:
            raise OutputError(
                f"the job store {str(self.path)!r} has version {version}, this program knows up to {SCHEMA_VERSION}",
                "update sglang-plugins, or choose another folder with --job-store-path",
            )
        if self._lock.was_left and num_tables:
            self._check_whole(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_MOST_LOG_PAGES}")
        if not num_tables:
            self._create(connection)
        (self._identity,) = connection.execute("SELECT identity FROM store").fetchone()
        # The log of an open database is neither removed nor replaced, so that its file can be flushed by itself.
        self._log = os.open(self.path.with_name(f"{FILE_NAME}-wal"), os.O_RDWR | os.O_CREAT, 0o600)

    def _check_whole(self, connection: sqlite3.Connection) -> None:
        """Look for damage where the server before this one ended suddenly."""
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {answer}")

    def _create(self, connection: sqlite3.Connection) -> None:
        with self._transaction():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO store VALUES (?, ?)", (secrets.token_hex(16), time.time()))
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @property
    def identity(self) -> str | None:
        """Return the name that the store got when it was made."""
        return str(self._identity)

    def create(self, job: Job) -> Job:
        """Keep a new job, or return the one that has its idempotency key."""
        record = _to_text(job)
        with self._transaction() as connection:
            if job.idempotency_key is not None:
                before = self._find(connection, job.owner, job.idempotency_key)
                if before is not None:
                    return before
            values = (job.id, job.created_at, job.kind, job.owner, job.idempotency_key, job.status, record)
            try:
                connection.execute(
                    "INSERT INTO jobs (id, created_at, kind, owner, idempotency_key, status, record) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
            except sqlite3.IntegrityError as error:
                raise ConflictError(f"there is a job {job.id!r} already", "submit it under another id") from error
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job."""
        with self._reading() as connection:
            return _from_row(connection.execute("SELECT record FROM jobs WHERE id = ?", (job_id,)).fetchone())

    def find(self, owner: str | None, idempotency_key: str) -> Job | None:
        """Return the job of an idempotency key."""
        with self._reading() as connection:
            return self._find(connection, owner, idempotency_key)

    def _find(self, connection: sqlite3.Connection, owner: str | None, idempotency_key: str) -> Job | None:
        statement = "SELECT record FROM jobs WHERE idempotency_key = ? AND owner IS ?"
        return _from_row(connection.execute(statement, (idempotency_key, owner)).fetchone())

    def change(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Replace a job by what ``change`` makes of it."""
        with self._transaction() as connection:
            before = _from_row(connection.execute("SELECT record FROM jobs WHERE id = ?", (job_id,)).fetchone())
            if before is None:
                return None
            after = change(before)
            check_change(before, after)
            if after != before:
                connection.execute(
                    "UPDATE jobs SET status = ?, record = ? WHERE id = ?", (after.status, _to_text(after), job_id)
                )
        return after

    def list(self, query: JobQuery) -> Sequence[Job]:
        """Return a page of jobs."""
        with self._reading() as connection:
            return self._list(connection, query)

    def _list(self, connection: sqlite3.Connection, query: JobQuery) -> Sequence[Job]:
        conditions, values = ["1"], []
        for name, value in (("kind", query.kind), ("owner", query.owner)):
            if value is not None:
                conditions.append(f"{name} = ?")
                values.append(value)
        if query.statuses:
            conditions.append(f"status IN ({', '.join('?' * len(query.statuses))})")
            values += list(query.statuses)
        if query.after is not None:
            statement = "SELECT created_at, sequence, owner FROM jobs WHERE id = ?"
            last = connection.execute(statement, (query.after,)).fetchone()
            if last is None or (query.owner is not None and last[2] != query.owner):
                return []
            conditions.append(f"(created_at, sequence) {'>' if query.order == 'asc' else '<'} (?, ?)")
            values += last[:2]
        order = "ASC" if query.order == "asc" else "DESC"
        rows = connection.execute(
            f"SELECT record FROM jobs WHERE {' AND '.join(conditions)} "  # noqa: S608 - made of constants
            f"ORDER BY created_at {order}, sequence {order} LIMIT ?",
            (*values, query.limit),
        )
        return [job_from_json(json.loads(row[0])) for row in rows]

    def count(self, statuses: Collection[JobStatus]) -> int:
        """Return how many jobs are in these states."""
        marks = ", ".join("?" * len(statuses))
        with self._reading() as connection:
            statement = f"SELECT count(*) FROM jobs WHERE status IN ({marks})"  # noqa: S608 - made of constants
            (number,) = connection.execute(statement, tuple(statuses)).fetchone()
        return int(number)

    def delete(self, job_id: str) -> Job | None:
        """Forget a job."""
        with self._transaction() as connection:
            row = connection.execute("DELETE FROM jobs WHERE id = ? RETURNING record", (job_id,)).fetchone()
        return _from_row(row)

    def flush(self) -> None:
        """Wait until the log is on the disk; the database file is flushed by SQLite before it reuses the log."""
        with self._log_mutex, self._translated():
            if self._log is not None:  # closing has flushed
                os.fsync(self._log)

    def close(self) -> None:
        """Write the log back, and let others open the store."""
        with self._mutex:
            if self._connection is None:
                return
            self._checkpoints.close()
            try:
                with self._translated():
                    self._release()
            finally:
                self._lock.release(is_clean=True)

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        with self._log_mutex:
            log, self._log = self._log, None
            if log is not None:
                os.close(log)
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._translated():
            yield self._open_connection()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the body a transaction that is kept when the body is done, and undone whatever it raises."""
        with self._mutex, self._translated():
            connection = self._open_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
                self._checkpoints.note_commit()
            finally:
                if connection.in_transaction:  # SQLite ends it by itself after some errors
                    connection.execute("ROLLBACK")

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OutputError(f"the job store {str(self.path)!r} is closed", "start the server again")
        return self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error


def _to_text(job: Job) -> str:
    return json.dumps(job.to_json(), ensure_ascii=False, separators=(",", ":"))


def _from_row(row: tuple[str] | None) -> Job | None:
    return None if row is None else job_from_json(json.loads(row[0]))
