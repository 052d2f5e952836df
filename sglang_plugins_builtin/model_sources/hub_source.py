"""A repo of the hub as a model: its listing, single files, ranges of large files, downloads into the client's cache.

Endpoint, token, cache folder and offline mode are the client's own (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``,
``HF_HUB_OFFLINE``), so a model that another program has downloaded is not downloaded again.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    hf_hub_url,
    is_offline_mode,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from sglang_core import (
    SAMPLING_FILE,
    FolderSource,
    ModelLoadError,
    ModelNotFoundError,
    ModelReference,
    ModelSource,
    ProgressCallback,
    SglangError,
    choose_weight_files,
    read_sampling_values,
)

from .downloads import SilentBar, download_files
from .hub_errors import UnreachableHubError, hub_error
from .known_models import known_sampling_values

logger = logging.getLogger(__name__)
# The client warns of a repo without an index, and one of an adapter has none.
logging.getLogger("huggingface_hub._snapshot_download").addFilter(
    lambda record: not str(record.msg).startswith("No files matched")
)

INDEX_FILE = "model_index.json"
#: Files up to this size are downloaded whole into the cache when something of them is read.
_SMALL_FILE_BYTES = 4 * 2**20
#: Read at once from the start of a large file: the header of most weight files is shorter.
_HEAD_BYTES = 256 * 2**10
_TIMEOUT_S = 30.0


def open_hub_model(reference: ModelReference) -> ModelSource:
    """Look a repo up on the hub, or in the cache when offline.

    Resolves the revision to a commit, and everything later reads that commit.

    :raises ModelNotFoundError: if there is no such repo or revision, no access to it, or no connection.
    """
    try:
        validate_repo_id(reference.path)
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{reference.path!r} is not a hub id", "give organisation/name, or ./folder for a local folder"
        ) from error
    if reference.offline or is_offline_mode():
        return _open_cached(reference, "the run is offline")
    try:
        folder = _look_up(reference)
    except UnreachableHubError as error:
        try:
            source = _open_cached(reference, "the hub is out of reach")
        except SglangError:
            raise error from None
        logger.warning("%s; using the downloaded copy of %s", error.problem, reference.path)
        return source
    return HubSource(reference, folder, _listing(reference, folder), is_offline=False)


def _look_up(reference: ModelReference) -> Path:
    """Return the snapshot folder of the commit; afterwards the cache knows the listing and the branch."""
    try:
        # First on its own: snapshot_download would use a cached copy without a word if the hub does not answer
        HfApi(token=reference.token).model_info(reference.path, revision=reference.revision, timeout=_TIMEOUT_S)
        folder = snapshot_download(
            reference.path,
            revision=reference.revision,
            token=reference.token,
            allow_patterns=[INDEX_FILE, SAMPLING_FILE],
            tqdm_class=SilentBar,
        )
    except Exception as error:  # the client raises its own, its transport's and the system's errors
        raise hub_error(error, reference) from error
    return Path(folder)


def _listing(reference: ModelReference, folder: Path) -> dict[str, int]:
    """Return path and size of all files of the commit, as the cache knows them after a look-up or a download."""
    try:
        entries = get_cached_repo_tree(reference.path, revision=folder.name)
    except CachedRepoTreeNotFoundError:  # downloaded by an older client
        return dict(FolderSource(reference.path, "hub", folder).files())
    return {entry.path: entry.size for entry in entries if _is_inside(entry.path)}


def _is_inside(path: str) -> bool:
    """Say whether a path of a listing stays below its folder. The hub's listing is as foreign as the repo."""
    return not path.startswith("/") and "\\" not in path and ".." not in path.split("/")


def _open_cached(reference: ModelReference, reason: str) -> "HubSource":
    found = try_to_load_from_cache(reference.path, INDEX_FILE, revision=reference.revision)
    folder = Path(found).parent if isinstance(found, str) else _cached_folder(reference)
    if folder is None:
        version = f" at revision {reference.revision}" if reference.revision else ""
        raise ModelNotFoundError(
            f"{reference.path}{version} is not in the cache {constants.HF_HUB_CACHE}, and {reason}",
            "run once without --offline and HF_HUB_OFFLINE while connected, or give a local folder",
        )
    return HubSource(reference, folder, _listing(reference, folder), is_offline=True)


def _cached_folder(reference: ModelReference) -> Path | None:
    """Return the folder of a repo that is no pipeline (an adapter has no index), if a file of it was downloaded."""
    try:
        entries = get_cached_repo_tree(reference.path, revision=reference.revision)
    except CachedRepoTreeNotFoundError:
        return None
    for path in (entry.path for entry in entries if _is_inside(entry.path)):
        found = try_to_load_from_cache(reference.path, path, revision=reference.revision)
        if isinstance(found, str):
            return Path(found.removesuffix(path))
    return None


class HubSource:
    """A :class:`~sglang_core.ModelSource` over one commit of a repo."""

    resolver = "hub"

    def __init__(self, reference: ModelReference, folder: Path, files: Mapping[str, int], *, is_offline: bool) -> None:
        self.reference = reference.path
        self.revision = folder.name
        self._folder = folder
        self._files = files
        self._token = reference.token
        self._reference = reference
        self._is_offline = is_offline
        #: The first bytes of large files, by path: two reads of a header are one request.
        self._heads: dict[str, bytes] = {}

    def files(self) -> Mapping[str, int]:
        """Return every file of the commit as relative POSIX path and size in bytes."""
        return self._files

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes of a file from ``start``, by a range request where the file is large.

        :raises ModelNotFoundError: if the file is not in the repo, not accessible, or not downloaded while offline.
        """
        if path not in self._files:
            raise ModelNotFoundError(f"{self.reference} has no file {path}", "check the repo on the hub")
        local = self._folder / path
        if not local.is_file():
            if self._is_offline:
                raise self._not_downloaded([path])
            if length is not None and self._files[path] > _SMALL_FILE_BYTES:
                return self._read_range(path, start, length)
            local = self._download_one(path)
        try:
            with local.open("rb") as file:
                file.seek(start)
                return file.read(-1 if length is None else length)
        except OSError as error:
            raise ModelLoadError(f"{local} can not be read: {error.strerror}", "check its permissions") from error

    def _download_one(self, path: str) -> Path:
        try:
            found = hf_hub_download(
                self.reference, path, revision=self.revision, token=self._token, tqdm_class=SilentBar
            )
        except Exception as error:  # as in _look_up
            raise hub_error(error, self._reference) from error
        return Path(found)

    def _read_range(self, path: str, start: int, length: int) -> bytes:
        if path not in self._heads and start < _HEAD_BYTES:
            self._heads[path] = self._request_range(path, 0, min(_HEAD_BYTES, self._files[path]))
        head = self._heads.get(path, b"")
        if start + length <= len(head):
            return head[start : start + length]
        return self._request_range(path, start, length)

    def _request_range(self, path: str, start: int, length: int) -> bytes:
        """Ask for ``length`` bytes; a server that ignores the range is read only as far as needed."""
        if length <= 0:
            return b""
        url = hf_hub_url(self.reference, path, revision=self.revision)
        headers = build_hf_headers(token=self._token)
        headers |= {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        parts = bytearray()
        try:
            # the session drops the token when it is sent on to another host
            with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
                hf_raise_for_status(response)
                skip = 0 if response.status_code == 206 else start
                for chunk in response.iter_bytes():
                    parts += chunk
                    if len(parts) >= skip + length:
                        break
        except Exception as error:  # as in _look_up
            raise hub_error(error, self._reference) from error
        return bytes(parts[skip : skip + length])

    def fetch(self, paths: Collection[str], progress: ProgressCallback) -> Path:
        """Download what is missing of ``paths`` and return the snapshot folder.

        Progress is told from this thread; if it raises, the downloads stop. Finished files stay in the cache.

        :raises ModelNotFoundError: if a file can not be had.
        :raises ModelLoadError: if the disk has no room for them.
        """
        sizes = {path: self._files.get(path, 0) for path in paths}
        missing = [path for path in sizes if not (self._folder / path).is_file()]
        if missing and self._is_offline:
            raise self._not_downloaded(missing)
        wanted = {path: sizes[path] for path in missing}
        download_files(self._reference, self.revision, wanted, sum(sizes.values()), progress)
        return self._folder

    def _not_downloaded(self, paths: Collection[str]) -> ModelNotFoundError:
        """Name everything that is missing for a run, so that one download is enough."""
        missing = sorted({*paths, *(path for path in self._wanted() if not (self._folder / path).is_file())})
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return ModelNotFoundError(
            f"{self.reference} is not completely downloaded, and the run is offline; missing: {names}",
            "run once without --offline and HF_HUB_OFFLINE while connected",
        )

    def _wanted(self) -> list[str]:
        """Return configurations and weights of all component folders."""
        folders: dict[str, list[str]] = {}
        for path in self._files:
            if path.count("/") == 1:
                folders.setdefault(path.partition("/")[0], []).append(path)
        found: list[str] = []
        for folder, inside in folders.items():
            config = f"{folder}/config.json"
            found.extend(choose_weight_files(inside) if config in inside else ())
            found.extend(path for path in inside if path == config)
        return found

    def sampling_defaults(self) -> Mapping[str, Any]:
        """Return the values of the repo's ``sglang.json``, else those of the known models."""
        own = read_sampling_values(self)
        return known_sampling_values(self.reference) if own is None else own
