"""A storage in the memory of a test."""

from collections.abc import Callable, Iterator

from attrs import define, field

from ..errors import OutputError
from ..hookspecs import hookimpl
from ..options import Settings
from ..registry import Availability
from ..storage import OpenStorage, StorageUploader, StoredObject, UploadItem


@define
class MemoryStorage:
    """Keeps what is uploaded in ``objects``, by key. ``error`` is raised by every upload while it is set.

    ``uploads`` are the items as they came; ``on_upload`` is called with each before anything is done with it;
    ``is_closed`` tells a test whether it was closed.
    """

    objects: dict[str, bytes] = field(factory=dict)
    uploads: list[UploadItem] = field(factory=list)
    error: Exception | None = None
    on_upload: Callable[[UploadItem], None] | None = None
    is_closed: bool = False

    def check(self) -> None:
        """Raise the error of a test, if it set one."""
        if self.error is not None:
            raise self.error

    def upload(self, item: UploadItem) -> StoredObject:
        """Keep the bytes of a file under its name."""
        if self.on_upload is not None:
            self.on_upload(item)
        self.check()
        try:
            self.objects[item.path.name] = item.path.read_bytes()
        except OSError as error:
            raise OutputError(f"cannot upload {item.path.name!r}: {error.strerror}", "see if it is there") from error
        self.uploads.append(item)
        return StoredObject(key=item.path.name, url=self.url_of(item.path.name))

    def url_of(self, key: str) -> str:
        """Return an address that leads nowhere."""
        return f"memory://storage/{key}"

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield what is kept."""
        if key not in self.objects:
            raise OutputError(f"there is no object {key!r}", "upload it")
        yield self.objects[key][start : None if length is None else start + length]

    def delete(self, key: str) -> None:
        """Forget an object."""
        self.objects.pop(key, None)

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True


@define
class MemoryUploader:
    """The storage ``memory``: every time it is opened it is the same :class:`MemoryStorage`."""

    name: str = "memory"
    storage: MemoryStorage = field(factory=MemoryStorage)
    availability: Availability = Availability.yes()

    def probe(self) -> Availability:
        """Return what the test wants."""
        return self.availability

    def open(self, settings: Settings) -> OpenStorage:
        """Return the storage."""
        self.storage.is_closed = False
        return self.storage


class _MemoryStoragePlugin:
    def __init__(self, storage: MemoryStorage) -> None:
        self._uploader = MemoryUploader(storage=storage)

    @hookimpl
    def sglang_register_storage_uploaders(self) -> list[StorageUploader]:
        return [self._uploader]


def memory_storage_plugin(storage: MemoryStorage) -> object:
    """Return a plugin that brings ``storage`` as ``--cloud-storage-type memory``."""
    return _MemoryStoragePlugin(storage)
