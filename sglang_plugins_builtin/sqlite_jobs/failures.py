"""What went wrong with a database, in words that help."""

import errno
import sqlite3
from pathlib import Path

from sglang_core import OutputError

_ELSEWHERE = "choose another folder with --job-store-path"
_NO_SPACE = ("no space is left there", f"free some space, or {_ELSEWHERE}")
_LOCKED = ("another program has it locked", "end the program that has it open, for example an sqlite3 shell")
_DAMAGED = (
    "it is damaged",
    "restore a copy of it, or save what can be read with 'sqlite3 FILE .recover', or move it away and start anew",
)
_READ_ONLY = ("it can not be written to", f"give the server the right to write there, or {_ELSEWHERE}")
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: _NO_SPACE,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: ("it can not be opened", f"see that the folder is there and writable, or {_ELSEWHERE}"),
    sqlite3.SQLITE_IOERR: ("the disk refuses", f"see that the disk is well and has space, or {_ELSEWHERE}"),
}
_BY_ERRNO = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: ("the disk quota is used up", f"free some space, or {_ELSEWHERE}"),
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ELSEWHERE),
    errno.EEXIST: ("a part of the path is a file, not a folder", _ELSEWHERE),
}


def store_error(path: Path, error: sqlite3.Error | OSError) -> OutputError:
    """Return what to tell the user about a failure of the database at ``path``."""
    if isinstance(error, OSError):
        reason, remedy = _BY_ERRNO.get(error.errno or 0, (error.strerror or str(error), _ELSEWHERE))
    else:
        code = getattr(error, "sqlite_errorcode", None)  # set only on errors that SQLite itself reported
        known = None if code is None else _BY_SQLITE_CODE.get(code & 0xFF)  # the rest of a code is detail
        if known is None and "malformed" in str(error):
            known = _DAMAGED
        reason, remedy = known or (str(error), _ELSEWHERE)
    return OutputError(f"job store {str(path)!r}: {reason}", remedy.replace("FILE", str(path)))
