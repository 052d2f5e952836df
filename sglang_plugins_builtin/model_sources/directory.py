"""A model in a local folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import Availability, ConfigError, ModelLoadError, ModelNotFoundError, closest

from .known_models import known_sampling_values

if TYPE_CHECKING:
    from sglang_core import FolderSource, ModelReference, ModelSource

_LOCAL_PREFIXES = ("./", "../", "/", "~", ".\\", "..\\")
#: A snapshot in the hub's cache: ``models--org--name/snapshots/<commit>``.
_SNAPSHOT = re.compile(r"models--[^/]+/snapshots/([0-9a-f]{40})\Z")


class DirectoryResolver:
    """Takes any existing folder; asked first, so that a folder is never shadowed by a hub id of the same name."""

    name = "directory"
    order = 10

    def probe(self) -> Availability:
        """Folders are always available."""
        return Availability.yes()

    def resolve(self, reference: ModelReference) -> ModelSource | None:
        """Return the folder as a model, or ``None`` if the reference does not look like a path.

        :raises ModelNotFoundError: if it looks like a path, but leads nowhere.
        :raises ModelLoadError: if it is a single file.
        :raises ConfigError: if a revision is asked for that this folder does not have.
        """
        if not reference.path.strip():
            raise ModelNotFoundError("the model path is empty", "give a folder, a hub id or an embedded model")
        try:
            path = Path(reference.path).expanduser()
            if path.is_dir():
                return _open(reference, path)
            is_file = path.is_file()
        except (OSError, RuntimeError) as error:  # no permission, a name too long, ~ of an unknown user
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ModelNotFoundError(
                f"the model path {_shorten(reference.path)} can not be followed: {reason}", "correct the path"
            ) from error
        if is_file:
            raise _single_file(reference.path)
        if reference.path.startswith(_LOCAL_PREFIXES):
            raise _not_there(reference.path, path)
        return None

    def hint(self, reference: ModelReference) -> str | None:
        """Say that there is no such folder."""
        return f"a local folder (there is none at {_shorten(reference.path)})"


def _open(reference: ModelReference, path: Path) -> FolderSource:
    from sglang_core import FolderSource  # only where a model is looked for

    folder = path.resolve()
    snapshot = _SNAPSHOT.search(folder.as_posix())
    revision = snapshot[1] if snapshot else None
    if reference.revision not in (None, revision):
        raise ConfigError(
            f"--revision {reference.revision} does not apply to the local folder {reference.path}",
            "leave --revision out, or give the hub id instead of a folder",
        )
    return FolderSource(reference.path, "directory", folder, revision, known_sampling_values(str(folder)))


def _single_file(path: str) -> ModelLoadError:
    folder = Path(path).parent
    if Path(path).name == "model_index.json":
        return ModelLoadError(f"{path} is a file; a model is the folder it lies in", f"use {folder}")
    return ModelLoadError(
        f"{path} is a single file; a model is a folder with a model_index.json and a folder for each component",
        "give the folder of the whole pipeline, or its hub id",
    )


def _not_there(given: str, path: Path) -> ModelNotFoundError:
    """Name the first part of the path that is missing, and its nearest sibling."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    try:
        names = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()]
    except OSError:
        names = []
    sibling = closest(missing.name, names)
    remedy = f"use {missing.parent / sibling}" if sibling else f"check the path: {missing} does not exist"
    return ModelNotFoundError(f"there is no model folder at {_shorten(given)}", remedy)


def _shorten(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:100]}...{path[-80:]}"
