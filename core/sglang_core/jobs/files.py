"""The files of jobs: where they are made, where they end, and how none is left behind.

Outputs are made in a folder of this server's own below the output folder and moved out when they are whole, so whatever
lies in the folder of a server that is gone is rubbish. Nothing else in the output folder is touched but files that are
called by the id of a job that is over and does not list them: people keep pictures of their own there.
"""

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from attrs import evolve

from ..errors import OutputError
from .records import Job, JobOutput

logger = logging.getLogger(__name__)

WORK_FOLDER_PREFIX = ".sglang-work-"
CLAIM_NAME = ".sglang-jobs"
_LOCK_NAME = "lock"
_MOST_SPARE_FOLDERS = 4
#: A file of a job: the job's id, then something that ends it.
_JOB_FILE = re.compile(r"([a-z]+_[0-9a-f]{32})(?=[._-])")
#: What :meth:`JobFiles.take` calls files.
_OUTPUT_FILE = re.compile(r"[a-z]+_[0-9a-f]{32}(_[0-9]+)?\.[^.]+")


class JobFiles:
    """The files of one server's jobs. Blocking methods; each may be called from any thread.

    :param identity: that of the job store; ``None`` for a store that forgets.
    """

    def __init__(self, output_folder: Path, input_folder: Path, identity: str | None) -> None:
        self._output_folder = output_folder
        self._input_folder = input_folder
        self._identity = identity
        self._work_folder: Path | None = None
        #: Empty ones, left by works that ended well.
        self._spare_folders: deque[Path] = deque(maxlen=_MOST_SPARE_FOLDERS)
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder for work, and remove those of servers that are gone.

        :raises OutputError: if the output folder cannot be written to.
        """
        with _translated(self._output_folder):
            self._output_folder.mkdir(parents=True, exist_ok=True)
            for folder in self._output_folder.glob(f"{WORK_FOLDER_PREFIX}*"):
                _remove_if_abandoned(folder)
            self._work_folder = self._output_folder / f"{WORK_FOLDER_PREFIX}{secrets.token_hex(8)}"
            self._work_folder.mkdir()
            self._lock = os.open(self._work_folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder for work."""
        if self._work_folder is not None:
            shutil.rmtree(self._work_folder, ignore_errors=True)
            self._work_folder = None
        self._spare_folders.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_work_folder(self) -> Path:
        """Return a new, empty folder to make outputs in.

        :raises OutputError: if it cannot be made.
        """
        if self._work_folder is None:
            raise OutputError("the files of jobs are closed", "start the server again")
        folder = self._work_folder / secrets.token_hex(8)
        with _translated(folder):
            folder.mkdir(parents=True)
        return folder

    def spare_work_folder(self) -> Path | None:
        """Return an empty folder to make outputs in, if there is one left of a work that is over; never blocks."""
        try:
            return self._spare_folders.popleft()
        except IndexError:
            return None

    def leave_work_folders(self, folders: Mapping[Path, bool]) -> None:
        """Remove such folders with what was not taken from them, or keep empty ones for other works.

        :param folders: and whether each is quiet: nobody can write to it any more.
        """
        for folder, is_quiet in folders.items():
            if not (is_quiet and self._keeps_for_another(folder)):
                shutil.rmtree(folder, ignore_errors=True)

    def _keeps_for_another(self, folder: Path) -> bool:
        """Keep a folder for another work, if it is empty."""
        with contextlib.suppress(OSError):
            if self._work_folder is not None and not any(folder.iterdir()):
                self._spare_folders.append(folder)
                return True
        return False

    def take(self, job_id: str, outputs: Collection[JobOutput], folder: Path) -> tuple[JobOutput, ...]:
        """Move finished outputs from the folder they were made in to where they stay, under the name of their job.

        :raises OutputError: if one is not there, or cannot be moved; none is left then.
        """
        taken: list[JobOutput] = []
        try:
            for output in outputs:
                suffix = Path(output.file or "").suffix
                number = "" if len(outputs) == 1 else f"_{output.index}"
                target = self._output_folder / f"{job_id}{number}{suffix}"
                with _translated(target):
                    (folder / Path(output.file or "missing").name).replace(target)
                taken.append(evolve(output, file=target.name, num_bytes=target.stat().st_size))
        except BaseException:
            self.remove_outputs(taken)
            raise
        return tuple(taken)

    def flush(self) -> None:
        """Wait until the names of taken outputs survive the loss of power; their content does already."""
        with contextlib.suppress(OSError):  # not every file system can flush a folder
            descriptor = os.open(self._output_folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def output_path(self, output: JobOutput) -> Path | None:
        """Return the file of an output; ``None`` if it is not here (any more), or not inside the output folder."""
        return None if output.file is None else _inside(self._output_folder, output.file)

    def remove_outputs(self, outputs: Iterable[JobOutput]) -> None:
        """Remove the files of outputs, where they are there.

        :raises OutputError: if one cannot be removed.
        """
        for output in outputs:
            path = self.output_path(output)
            if path is not None:
                with _translated(path):
                    path.unlink(missing_ok=True)

    def remove(self, jobs: Collection[Job]) -> None:
        """Remove everything of some jobs: outputs, what was made from them, and the files that the requests brought.

        :raises OutputError: if one cannot be removed.
        """
        ids = {job.id for job in jobs}
        for job in jobs:
            self.remove_outputs(job.outputs)
        self.remove_inputs(jobs)
        for path, job_id in _job_files(self._output_folder):
            if job_id in ids:
                with _translated(path):
                    path.unlink(missing_ok=True)

    def remove_inputs(self, jobs: Collection[Job]) -> None:
        """Remove the files that the requests of some jobs brought.

        :raises OutputError: if one cannot be removed.
        """
        for name in (name for job in jobs for name in job.input_files):
            path = _inside(self._input_folder, name)
            if path is not None:
                with _translated(path):
                    path.unlink(missing_ok=True)

    def sweep(self, find: Callable[[str], Job | None], older_than: float) -> list[Path]:
        """Remove files that belong to no job (any more), and return them.

        :param find: returns the job of an id.
        :param older_than: seconds since the epoch; uploads changed later may belong to a request that is being read.
        """
        rubbish = [path for path, job_id in _job_files(self._output_folder) if _is_unlisted(path, find(job_id))]
        if self._claims_inputs():
            for path, job_id in _job_files(self._input_folder):
                job = find(job_id)
                if (job is None or path.name not in job.input_files) and _changed_at(path) < older_than:
                    rubbish.append(path)
        removed = []
        for path in rubbish:
            try:
                path.unlink(missing_ok=True)
                removed.append(path)
            except OSError as error:
                logger.warning("%s belongs to no job, and can not be removed: %s", path, error.strerror or error)
        return removed

    def _claims_inputs(self) -> bool:
        """Say whether uploads in the input folder are of this store's jobs: the first store to use it has it."""
        if self._identity is None or not self._input_folder.is_dir():
            return False
        claim = self._input_folder / CLAIM_NAME
        try:
            with contextlib.suppress(FileExistsError), claim.open("x", encoding="ascii") as file:
                file.write(self._identity)
            return claim.read_text(encoding="ascii") == self._identity
        except (OSError, UnicodeError) as error:
            logger.warning("%s can not be used, so uploads that no job needs stay: %s", claim, error)
            return False


def _job_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of a folder that are called by the id of a job, with that id."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        match = _JOB_FILE.match(entry.name)
        if match is not None and entry.is_file(follow_symlinks=False):
            yield Path(entry.path), match[1]


def _is_unlisted(path: Path, job: Job | None) -> bool:
    """Say whether a file is an output that its job does not have; pictures made from an output are none."""
    if job is None or not job.is_over or path.name in {output.file for output in job.outputs}:
        return False
    return job.status != "completed" or _OUTPUT_FILE.fullmatch(path.name) is not None


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _inside(folder: Path, name: str) -> Path | None:
    """Return the file called ``name`` below a folder if it is one, wherever links may lead."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder for work whose server is gone: the lock in it died with the process."""
    try:
        lock = os.open(folder / _LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        if time.time() - _changed_at(folder) > 60:  # else its server may be about to make the lock
            shutil.rmtree(folder, ignore_errors=True)
        return
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "see that the folder is there, has space and may be written to by the server"
        raise OutputError(f"{str(path)!r}: {reason}", remedy) from error
