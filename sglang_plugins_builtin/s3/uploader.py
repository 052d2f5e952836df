"""The storage ``s3``, as the host sees it before it is used."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from sglang_core import Availability

from .config import S3Options

if TYPE_CHECKING:
    from sglang_core import OpenStorage, Settings


class S3Uploader:
    """Uploads to a bucket of S3, MinIO, Ceph, R2 or another storage with the same protocol."""

    name = "s3"

    def probe(self) -> Availability:
        """Say whether the minio package is there, without importing it."""
        if find_spec("minio") is None:
            return Availability.no("the package minio is not installed", "pip install minio")
        return Availability.yes()

    def open(self, settings: Settings) -> OpenStorage:
        """Return the bucket that the settings describe; nothing is sent yet.

        :raises ConfigError: if a setting is missing or wrong, or two do not go together.
        """
        from .storage import S3Storage  # minio: 0.1 s

        return S3Storage(settings.of(S3Options), settings.origin)
