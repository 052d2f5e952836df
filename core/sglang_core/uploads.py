"""From a finished file to a storage, with a record beside the file until that has worked, so that none is forgotten."""

import json
import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, field, frozen

from .errors import ConfigError, OutputError, UnavailableError
from .events import OutputUploaded
from .foreign_code import translated
from .options import Settings
from .options.storage import StorageOptions
from .outputs import open_atomic
from .registry import unknown_name
from .requests import GenerationOutput
from .storage import OpenStorage, StoredObject, UploadItem

if TYPE_CHECKING:
    from .engine.control import StepControl
    from .plugins import PluginManager

logger = logging.getLogger(__name__)

_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".glb": "model/gltf-binary",
    ".obj": "text/plain",
}
_RECORD_SUFFIX = ".upload.json"
_RECORD_FORMAT = 1
_AT_ONCE = 4
_POLL_S = 0.2


def open_storage(manager: "PluginManager", settings: Settings) -> OpenStorage | None:
    """Return the storage that the settings choose, or ``None`` if they choose none. Nothing is sent yet.

    :raises ConfigError: for a storage that nobody brings, or a setting of it that is missing, wrong or without effect.
    :raises UnavailableError: if it cannot work on this machine.
    """
    wanted = (settings.of(StorageOptions).cloud_storage_type or "").strip().lower()
    _refuse_unused(manager, settings, wanted)
    if not wanted:
        return None
    if wanted not in manager.storage_uploaders:
        problem, remedy = unknown_name("storage", wanted, (uploader.name for uploader in manager.storage_uploaders))
        raise ConfigError(f"{settings.origin('cloud_storage_type').label}: {problem}", remedy)
    uploader = manager.storage_uploaders.get(wanted)
    availability = uploader.probe()
    if not availability.is_available:
        raise UnavailableError(f"storage {uploader.name!r}: {availability.reason}", availability.remedy)
    return uploader.open(settings)


def _refuse_unused(manager: "PluginManager", settings: Settings, wanted: str) -> None:
    """Refuse settings of a storage that is not chosen; variables may be there for other programs."""
    owners = {
        manager.storage_uploaders.owner(uploader.name): uploader.name
        for uploader in manager.storage_uploaders
        if wanted not in (uploader.name, *getattr(uploader, "aliases", ()))
    }
    for group, option_field, value in settings.fields():
        name = owners.get(manager.options.owner(group.name))
        origin = settings.origin(option_field.name)
        if name and value != option_field.default and origin.kind not in ("environment", "default"):
            problem = f"{origin.label} does not apply: nothing is uploaded to the storage {name!r}"
            raise ConfigError(problem, f"add --cloud-storage-type {name}, or leave {option_field.flag} out")


def media_type_of(path: Path) -> str:
    """Return the media type of a file by its extension."""
    return _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def upload_file(storage: OpenStorage, item: UploadItem) -> StoredObject:
    """Upload a file, then delete it here; one that cannot be deleted is reported in a warning.

    :raises OutputError: if the storage has given up; the file is untouched.
    """
    with translated("the storage", OutputError, "see the documentation of the storage's plugin"):
        stored = storage.upload(item)
    try:
        item.path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s is uploaded, but cannot be deleted here: %s", item.path, error.strerror or error)
    return stored


@frozen(kw_only=True)
class PendingUpload:
    """A finished file that waits for its upload; ``problem`` says why the last attempt failed, if there was one."""

    path: Path
    storage: str
    media_type: str
    facts: Mapping[str, str] = field(factory=dict)
    problem: str = ""

    @property
    def record_path(self) -> Path:
        """Return the hidden file beside ``path`` that holds this record."""
        return self.path.with_name(f".{self.path.name}{_RECORD_SUFFIX}")

    @property
    def item(self) -> UploadItem:
        """Return what the storage takes."""
        return UploadItem(path=self.path, media_type=self.media_type, facts=self.facts)

    def keep(self) -> None:
        """Write the record; what prevents it is a warning, for the file itself is safe."""
        values = {**asdict(self), "format": _RECORD_FORMAT, "path": self.path.name}
        try:
            with open_atomic(self.record_path) as hidden:
                hidden.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        except OutputError as error:
            logger.warning("the upload of %s is not noted down: %s", self.path, error.problem)

    def forget(self) -> None:
        """Remove the record."""
        self.record_path.unlink(missing_ok=True)


def pending_uploads(folder: Path) -> list[PendingUpload]:
    """Return the files of a folder that wait for their upload, by name.

    A record whose file is gone is removed, one that cannot be read is reported in a warning.
    """
    found = []
    for record in sorted(folder.glob(f".*{_RECORD_SUFFIX}")):
        try:
            pending = _read_record(record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("%s is no record of an upload: %s", record, error)
            continue
        if pending.path.is_file():
            found.append(pending)
        else:
            record.unlink(missing_ok=True)
    return found


def _read_record(record: Path) -> PendingUpload:
    values: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    if values.pop("format") != _RECORD_FORMAT:
        raise ValueError("it is of another version")
    # The name in the record is for people: the file is the one the record lies beside, wherever both were moved to.
    values["path"] = record.with_name(record.name[1 : -len(_RECORD_SUFFIX)])
    return PendingUpload(**values)


def upload_pending(storage: OpenStorage, pending: PendingUpload) -> StoredObject | None:
    """Upload one file that has a record; ``None`` if another process is about it, or was.

    :raises OutputError: if the storage has given up; file and record stay, and the record says why.
    """
    with _claimed(pending.record_path) as is_ours:
        if not is_ours or not pending.path.is_file():
            return None
        try:
            stored = upload_file(storage, pending.item)
        except OutputError as error:
            evolve(pending, problem=error.problem).keep()
            raise
        pending.forget()
        return stored


@contextmanager
def _claimed(record: Path) -> Iterator[bool]:
    """Say whether no other process works on a record, and keep others off it; a process that dies lets go."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes may upload the same file twice, to the same place
        yield record.exists()
        return
    try:
        file = record.open("rb")
    except FileNotFoundError:
        yield False
        return
    with file:
        is_ours = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_ours = False
        except OSError:  # a file system without locks
            logger.debug("%s cannot be locked", record)
        yield is_ours


class OutputUploads:
    """Uploads the outputs of a run while the next ones are made. Close it when the run is over.

    :param storage: closed together with this.
    :param kind: the name of the storage, for the records.
    :param control: the run; ``upload`` becomes one of its stages.
    """

    def __init__(self, storage: OpenStorage, kind: str, control: "StepControl") -> None:
        self._storage = storage
        self._kind = kind
        self._control = control
        self._date = datetime.now(UTC).date().isoformat()
        self._results: dict[int, Future[StoredObject | None]] = {}
        self._queue: queue.SimpleQueue[tuple[PendingUpload, Future[StoredObject | None]] | None] = queue.SimpleQueue()
        self._num_workers = 0

    def add(self, index: int, output: GenerationOutput) -> None:
        """Begin to upload a saved output. Its record is written first: what is cut short can be done later."""
        if output.path is None:
            return
        facts = {"id": self._control.run_id, "index": str(index), "kind": output.kind, "date": self._date}
        media_type = media_type_of(output.path)
        pending = PendingUpload(path=output.path, storage=self._kind, media_type=media_type, facts=facts)
        pending.keep()
        result: Future[StoredObject | None] = Future()
        self._results[index] = result
        self._queue.put((pending, result))
        if self._num_workers < _AT_ONCE:
            self._num_workers += 1
            # no executor: its threads would hold up the end of a process that was told to stop
            threading.Thread(target=self._work, name="upload", daemon=True).start()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            pending, result = work
            try:
                result.set_result(self._upload(pending))
            except BaseException as error:  # for the thread that waits
                result.set_exception(error)

    def _upload(self, pending: PendingUpload) -> StoredObject | None:
        if pending.record_path.exists():
            return upload_pending(self._storage, pending)
        return upload_file(self._storage, pending.item)  # a disk too full for the record

    def finish(self, outputs: Sequence[GenerationOutput]) -> tuple[GenerationOutput, ...]:
        """Wait for all uploads and return the outputs with their URLs; those that failed keep their file.

        :raises SglangError: if the run is stopped meanwhile; what is not uploaded by then keeps file and record.
        """
        if not self._results:
            logger.warning("nothing is uploaded: no file is saved that could be")
            return tuple(outputs)
        control, total = self._control, len(self._results)
        with control.stage("upload", total=total, unit="file"):
            waiting: set[Future[StoredObject | None]] = set(self._results.values())
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                control.check()
                if done:
                    control.step("upload", total - len(waiting), total, "file")
        return tuple(self._with_upload(index, output) for index, output in enumerate(outputs))

    def _with_upload(self, index: int, output: GenerationOutput) -> GenerationOutput:
        result = self._results.get(index)
        if result is None:
            return output
        try:
            stored = result.result()
        except OutputError as error:
            folder = output.path.parent if output.path else Path()
            logger.warning(
                "%s is not uploaded, and stays here: %s\nTry: %s; then run 'sglang uploads %s --retry'",
                *(output.path, error.problem, error.remedy, folder),
            )
            return evolve(output, upload_error=error.problem)
        if stored is None:  # somebody runs 'sglang uploads --retry' meanwhile, who is told the URL
            return output if output.path is not None and output.path.exists() else evolve(output, path=None)
        event = OutputUploaded(run_id=self._control.run_id, path=str(output.path), index=index, url=stored.url)
        self._control.emit(event)
        return evolve(output, path=None, url=stored.url, object_key=stored.key)

    def close(self) -> None:
        """Close the storage: what is under way comes to its end; what has not begun, or has to try again, is left."""
        self._storage.close()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in range(self._num_workers):
            self._queue.put(None)


@contextmanager
def output_uploads(
    manager: "PluginManager", settings: Settings, control: "StepControl"
) -> Iterator[OutputUploads | None]:
    """Open the storage of a run's settings for the body; ``None`` where none is chosen.

    :raises SglangError: if the storage's settings are not right.
    """
    storage = open_storage(manager, settings)
    if storage is None:
        yield None
        return
    uploads = OutputUploads(storage, (settings.of(StorageOptions).cloud_storage_type or "").strip().lower(), control)
    try:
        yield uploads
    finally:
        uploads.close()
