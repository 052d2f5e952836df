"""What every storage must do, as a function that raises ``AssertionError`` with a sentence."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import OutputError
from ..options import Settings
from ..registry import Availability
from ..storage import OpenStorage, StorageUploader, UploadItem
from .contracts import _check_light, _expect, _require

_NAMES = ("plain.png", "with space & plus+.png", "ein Würfel, 円.png", "empty.bin")
_LARGE_BYTES = 300_000


def check_storage_uploader(uploader: StorageUploader, settings: Settings, folder: Path) -> None:
    """Open a storage, upload files of several kinds, read them back whole and in parts, and delete them.

    :param settings: settings that name a storage which is there and may be written to.
    :param folder: an empty folder for the files.
    """
    name = uploader.name
    _require(bool(name) and name == name.strip().lower(), f"{name!r} is no lower-case name")
    before = set(sys.modules)
    answer = uploader.probe()
    _check_light(name, "probe", before)
    _require(isinstance(answer, Availability), f"{name}: probe returned {answer!r}, not an Availability")
    _require(answer.is_available, f"{name} cannot be checked here: {answer.reason} ({answer.remedy})")
    storage = uploader.open(settings)
    try:
        storage.check()
        _check_uploads(name, storage, folder)
        _check_replacing(name, storage, folder)
        _check_failing(name, storage, folder)
        _check_threads(name, storage, folder)
    finally:
        storage.close()
        storage.close()  # twice is no error


def _content(index: int) -> bytes:
    return bytes(range(256)) * 4 + bytes([index])


def _written(folder: Path, name: str, content: bytes) -> UploadItem:
    path = folder / name
    path.write_bytes(content)
    facts = {"id": "0123456789abcdef", "index": "0", "kind": "image", "date": "2024-02-29"}
    return UploadItem(path=path, media_type="image/png", facts=facts)


def _check_uploads(name: str, storage: OpenStorage, folder: Path) -> None:
    keys = set()
    for index, file_name in enumerate(_NAMES):
        content = b"" if file_name.startswith("empty") else _content(index)
        item = _written(folder, file_name, content)
        stored = storage.upload(item)
        keys.add(stored.key)
        _require(item.path.read_bytes() == content, f"{name}: uploading changed the local file {file_name!r}")
        _require("://" in stored.url, f"{name}: {stored.url!r} is no URL")
        _require("://" in storage.url_of(stored.key), f"{name}: url_of() gives no URL for {stored.key!r}")
        _require(_read(storage, stored.key) == content, f"{name}: {file_name!r} reads back as other bytes")
        if content:
            part = b"".join(storage.read(stored.key, 3, 5))
            _require(part == content[3:8], f"{name}: reading 5 bytes from the third on gives {part!r}")
            rest = b"".join(storage.read(stored.key, 1000))
            _require(rest == content[1000:], f"{name}: reading from byte 1000 on gives other bytes")
        _require(b"".join(storage.read(stored.key, 0, 0)) == b"", f"{name}: reading 0 bytes gives some")
    _require(len(keys) == len(_NAMES), f"{name}: {len(_NAMES)} files got {len(keys)} keys")
    for key in keys:
        storage.delete(key)
        _check_gone(name, storage, key)
        storage.delete(key)  # gone already: no error


def _check_replacing(name: str, storage: OpenStorage, folder: Path) -> None:
    first = storage.upload(_written(folder, "again.png", b"first"))
    second = storage.upload(_written(folder, "again.png", b"second"))
    _require(first.key == second.key, f"{name}: the same file and facts get the keys {first.key} and {second.key}")
    _require(_read(storage, second.key) == b"second", f"{name}: a second upload did not replace the first")
    storage.delete(second.key)


def _check_failing(name: str, storage: OpenStorage, folder: Path) -> None:
    stored = storage.upload(_written(folder, "missing.png", b"x"))
    storage.delete(stored.key)
    missing = UploadItem(path=folder / "missing.png", media_type="image/png")
    missing.path.unlink()
    _expect(OutputError, f"{name}: uploading a file that is not there", lambda: storage.upload(missing))
    _check_gone(name, storage, stored.key)


def _check_threads(name: str, storage: OpenStorage, folder: Path) -> None:
    items = [_written(folder, f"thread_{index}.bin", bytes([index]) * _LARGE_BYTES) for index in range(4)]
    with ThreadPoolExecutor(len(items)) as threads:
        keys = [stored.key for stored in threads.map(storage.upload, items)]
    for index, key in enumerate(keys):
        right = _read(storage, key) == bytes([index]) * _LARGE_BYTES
        _require(right, f"{name}: of four uploads at the same time, number {index} reads back as other bytes")
        storage.delete(key)


def _check_gone(name: str, storage: OpenStorage, key: str) -> None:
    reading: Callable[[], object] = lambda: _read(storage, key)  # noqa: E731 - a name for the type
    _expect(OutputError, f"{name}: reading an object that is not there", reading)


def _read(storage: OpenStorage, key: str) -> bytes:
    return b"".join(storage.read(key))
