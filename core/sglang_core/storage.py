"""What a storage uploader is to the host."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from .registry import Availability

if TYPE_CHECKING:
    from .options import Settings


@frozen(kw_only=True)
class StoredObject:
    """Where an upload went: its key for the uploader, and a URL for people, which may expire."""

    key: str
    url: str


@frozen(kw_only=True)
class UploadItem:
    """A finished file to upload; ``facts`` (``id``, ``index``, ``kind``, ``date``) fill the uploader's key template."""

    path: Path
    media_type: str
    facts: Mapping[str, str] = field(factory=dict)


class OpenStorage(Protocol):
    """A storage that was configured and checked. Blocking methods; each may be called from any thread."""

    def check(self) -> None:
        """See that the bucket is there and may be written to, without leaving anything behind.

        :raises SglangError: if not, with the reason and a remedy; no secret is in the message.
        """

    def upload(self, item: UploadItem) -> StoredObject:
        """Upload one file, with retries and back-off of its own.

        :raises OutputError: when it has given up; the local file is untouched, and nothing half-made is visible there.
        """

    def url_of(self, key: str) -> str:
        """Return a URL of an uploaded object that works now (signed again where URLs expire)."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the bytes of an object from ``start``, for servers that hand content through.

        :raises OutputError: if it cannot be read.
        """

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is no error."""

    def close(self) -> None:
        """Release connections."""


class StorageUploader(Protocol):
    """A kind of storage, chosen by ``SGLANG_CLOUD_STORAGE_TYPE`` or ``--cloud-storage-type``."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    def probe(self) -> Availability:
        """Say whether this storage can work here, without importing anything heavy."""

    def open(self, settings: "Settings") -> OpenStorage:
        """Return the storage that the settings describe; nothing is sent yet.

        :raises ConfigError: if a setting is missing or wrong; no secret is in the message.
        """
