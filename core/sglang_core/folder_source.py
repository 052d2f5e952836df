"""A model that lies in a local folder, for every resolver that ends in one."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ModelLoadError
from .models import INDEX_FILE, ProgressCallback
from .sampling_values import read_sampling_values

#: How deep a pipeline folder is listed: components lie at 1, their own folders below. Stops a listing of a whole disk.
_DEEPEST_LEVEL = 4
_SKIPPED_FOLDERS = frozenset({".git", ".cache", "__pycache__"})


class FolderSource:
    """A :class:`~sglang_core.ModelSource` over a local folder.

    Links inside the folder are followed, also to the outside: that is how the hub's cache is built. Names are always
    relative to the folder, and only names that :meth:`files` lists can be read.

    :param sampling_values: recommended request values, used where the folder has no ``sglang.json``.
    """

    def __init__(
        self,
        reference: str,
        resolver: str,
        folder: Path,
        revision: str | None = None,
        sampling_values: Mapping[str, Any] | None = None,
    ) -> None:
        self.reference = reference
        self.resolver = resolver
        self.revision = revision
        self.folder = folder
        self._sampling_values = dict(sampling_values or {})
        self._files: dict[str, int] | None = None

    def files(self) -> Mapping[str, int]:
        """Return every file as relative POSIX path and size in bytes; only the top level without a pipeline index."""
        if self._files is None:
            try:
                levels = _DEEPEST_LEVEL if (self.folder / INDEX_FILE).is_file() else 0
                self._files = dict(list_files(self.folder, levels))
            except OSError as error:
                raise ModelLoadError(
                    f"the model folder {self.folder} can not be read: {error.strerror}", "check its permissions"
                ) from error
        return self._files

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes of a file from ``start`` (to its end if ``None``).

        :raises ModelLoadError: if the folder has no such file, or it can not be read.
        """
        if path not in self.files():
            raise ModelLoadError(f"{self.reference} has no file {path!r}", "download the model again")
        try:
            with (self.folder / path).open("rb") as file:
                file.seek(start)
                return file.read(-1 if length is None else length)
        except OSError as error:
            raise ModelLoadError(
                f"{path} of {self.reference} can not be read: {error.strerror}", "check the permissions of the file"
            ) from error

    def fetch(self, paths: Collection[str], progress: ProgressCallback) -> Path:
        """Return the folder: everything is here already."""
        num_bytes = sum(self.files().get(path, 0) for path in paths)
        progress(num_bytes, num_bytes)
        return self.folder

    def sampling_defaults(self) -> Mapping[str, Any]:
        """Return the values of ``sglang.json``, else those the resolver knows."""
        own = read_sampling_values(self)
        return self._sampling_values if own is None else own


def list_files(folder: Path, levels: int) -> Iterator[tuple[str, int]]:
    """Yield relative POSIX path and size of the regular files below ``folder``, ``levels`` folders deep.

    A link back to a folder that is being listed is not followed, and neither are version control and cache folders.

    :raises OSError: if the folder itself can not be listed.
    """
    yield from _list_level(folder, "", levels, (os.path.realpath(folder),))


def _list_level(folder: Path, prefix: str, levels: int, open_folders: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                if entry.is_file():  # follows links; sockets, pipes and devices are no files
                    yield prefix + entry.name, entry.stat().st_size
                    continue
                if not levels or not entry.is_dir() or entry.name in _SKIPPED_FOLDERS:
                    continue
                real = os.path.realpath(entry.path)
                if real not in open_folders:
                    inside = Path(entry.path)
                    yield from _list_level(inside, f"{prefix}{entry.name}/", levels - 1, (*open_folders, real))
            except OSError:  # a dangling or circular link, a folder without permission: not part of the model
                continue
