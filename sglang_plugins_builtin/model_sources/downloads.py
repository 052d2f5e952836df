"""Files of a repo into the client's cache: several at once, with one progress over all their bytes."""

import contextlib
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import tqdm

from sglang_core import ModelReference, ProgressCallback

from .hub_errors import hub_error, no_space

_NUM_WORKERS = 8
_PROGRESS_INTERVAL_S = 0.1
#: A download tells its progress, resumes and can be stopped once per chunk. The client's own 10 MiB are many seconds on
#: a slow line, and it takes the size from nowhere else.
_CHUNK_BYTES = 2**20


class SilentBar(tqdm):
    """The client's progress bar, never shown: the host draws its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["disable"] = True
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # the client's class is not typed


class _StoppedError(Exception):
    """Raised inside a download to end it."""


class _ByteCount:
    """The bytes that have arrived, counted by the downloading threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_bytes = 0
        self.is_stopped = False

    def add(self, num_bytes: float) -> None:
        with self._lock:
            self._num_bytes += int(num_bytes)
        if self.is_stopped:
            raise _StoppedError

    @property
    def num_bytes(self) -> int:
        with self._lock:
            return self._num_bytes

    def bar_class(self) -> type[SilentBar]:
        """Return a progress bar class that counts here: the client takes a class, not an object."""
        count = self

        class CountingBar(SilentBar):
            def update(self, n: float | None = 1) -> bool | None:
                count.add(n or 0)
                return None

            def update_transfer(self, n: float | None = 1) -> None:
                """Network bytes of chunked storage; bytes on disk are what is counted."""

            def set_transfer_postfix_str(self, postfix: str, refresh: bool = False) -> None:
                """Speed of chunked storage: not shown."""

        return CountingBar


def download_files(
    reference: ModelReference, commit: str, missing: Mapping[str, int], total_bytes: int, progress: ProgressCallback
) -> None:
    """Download ``missing`` (path to size in bytes), telling progress in bytes out of ``total_bytes``.

    ``total_bytes`` counts the files that are there already too. ``progress`` is called in this thread only; what it
    raises ends the downloads and is passed on. An interrupted connection is resumed by the client; finished files are
    kept.

    :raises ModelNotFoundError: if a file can not be had.
    :raises ModelLoadError: if the disk has no room.
    """
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    missing_bytes = sum(missing.values())
    _check_space(reference, missing_bytes)
    count = _ByteCount()
    pool = ThreadPoolExecutor(_NUM_WORKERS, thread_name_prefix="download")
    try:
        # the largest first: they take longest
        paths = sorted(missing, key=lambda path: -missing[path])
        futures = {pool.submit(_download, reference, commit, path, count.bar_class()) for path in paths}
        there = total_bytes - missing_bytes
        while futures:
            done, futures = wait(futures, timeout=_PROGRESS_INTERVAL_S, return_when="FIRST_EXCEPTION")
            _raise_first(done, reference)
            progress(min(there + count.num_bytes, total_bytes), total_bytes)
        progress(total_bytes, total_bytes)
    finally:
        count.is_stopped = True
        if any(not future.done() for future in futures):
            _abort_chunked_downloads()
        pool.shutdown(cancel_futures=True)


def _download(reference: ModelReference, commit: str, path: str, bar_class: type[SilentBar]) -> str:
    return hf_hub_download(reference.path, path, revision=commit, token=reference.token, tqdm_class=bar_class)


def _raise_first(done: set["Future[str]"], reference: ModelReference) -> None:
    for future in done:
        error = future.exception()
        if isinstance(error, Exception):
            raise hub_error(error, reference) from error


def _check_space(reference: ModelReference, needed_bytes: int) -> None:
    """Refuse before the first byte; the client itself only warns."""
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise no_space(reference, needed_bytes, free)


def _abort_chunked_downloads() -> None:
    """End downloads from chunked storage (hf_xet), whose threads are not ours to stop.

    The client does the same on Ctrl-C, and offers no public name for it.
    """
    with contextlib.suppress(ImportError):
        from huggingface_hub.utils._xet import abort_xet_session

        abort_xet_session()  # type: ignore[no-untyped-call]  # the client's function is not typed
