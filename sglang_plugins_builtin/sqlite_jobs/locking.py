"""One server for each store."""

import fcntl
import os
from pathlib import Path

from sglang_core import OutputError

FILE_NAME = "lock"


class StoreLock:
    """A lock on a folder, which the system releases when the process ends, however it ends.

    :raises OutputError: if another process holds it.
    """

    #: Whether the one before did not release it: the process was killed, or the machine lost power.
    was_left: bool

    def __init__(self, folder: Path) -> None:
        self._file: int | None = os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise OutputError(
                f"the job store {str(folder)!r} is in use by another server (process {holder or 'unknown'})",
                "stop that server, or give this one a folder of its own with --job-store-path",
            ) from error
        self.was_left = bool(holder)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self, *, is_clean: bool) -> None:
        """Let others have the folder.

        :param is_clean: whether everything was closed properly; if not, the next one looks for damage.
        """
        if self._file is None:
            return
        if is_clean:
            os.ftruncate(self._file, 0)
        os.close(self._file)
        self._file = None
