"""How files appear: whole or not at all, and with a remedy when they cannot."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

_ELSEWHERE = "choose another folder with --output-path"
_NO_SPACE = ("no space is left there", f"free some space, or {_ELSEWHERE}")
_NO_FOLDER = ("a part of the path is a file, not a folder", _ELSEWHERE)
_REASONS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: ("the disk quota is used up", f"free some space, or {_ELSEWHERE}"),
    errno.EFBIG: ("the file would be larger than this system allows", f"raise the limit (ulimit -f), or {_ELSEWHERE}"),
    errno.EACCES: ("permission denied", f"{_ELSEWHERE}, one that you may write to"),
    errno.EPERM: ("permission denied", f"{_ELSEWHERE}, one that you may write to"),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: ("it is a folder", "choose another name with --output-file-name, or remove the folder"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "choose a shorter --output-path or name"),
    errno.ELOOP: ("its symbolic links go in a circle", _ELSEWHERE),
}
_PROBE_BYTES = 4096


@contextmanager
def open_atomic(path: Path, *, stays: bool = True) -> Iterator[Path]:
    """Give the body a path to write to; when the body is done, what it wrote becomes ``path`` in one step.

    The body's path is hidden, lies beside ``path`` and has its extension. It is removed if the body raises anything,
    ``KeyboardInterrupt`` included, and then an older file at ``path`` is as it was. The folder is created.

    :param stays: false where the file is moved on at once: its content survives the loss of power, its name need not.
    :raises OutputError: for every ``OSError``, those of the body included, and if the body wrote nothing.
    """
    hidden = path.with_name(f".{secrets.token_hex(8)}.part{path.suffix}")
    try:
        _refuse_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield hidden
        with hidden.open("rb+") as file:
            os.fsync(file.fileno())
        hidden.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
    if stays:
        with suppress(OSError):  # not every file system can flush a folder, and the file itself is safe
            _flush_folder(path.parent)


def check_writable(directory: Path) -> None:
    """Find out, before anything expensive, whether files can be written to ``directory``; leaves nothing behind.

    A folder that does not exist yet is created for the probe and removed again.

    :raises OutputError: if not, with the reason and a remedy.
    """
    missing = [folder for folder in (directory, *directory.parents) if not _exists(folder)]
    probe = directory / f".{secrets.token_hex(8)}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with probe.open("xb") as file:
            file.write(bytes(_PROBE_BYTES))  # a full disk still creates empty files
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _output_error(directory, error) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        for folder in missing:  # the innermost first; one that somebody has filled meanwhile stays
            with suppress(OSError):
                folder.rmdir()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # for example a name that is too long, which the probe then reports
        return True


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(path: Path, error: OSError) -> OutputError:
    fallback = (error.strerror or str(error) or type(error).__name__, _ELSEWHERE)
    reason, remedy = _REASONS.get(error.errno or 0, fallback)
    return OutputError(f"cannot write {str(path)!r}: {reason}", remedy)
