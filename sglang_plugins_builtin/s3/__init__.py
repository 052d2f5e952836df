"""Uploads to S3 and whatever speaks its protocol, on the minio package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import Check, OptionGroup, hookimpl

from .config import S3Options
from .uploader import S3Uploader

if TYPE_CHECKING:
    from sglang_core import CheckResult, StorageUploader


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add the settings of the bucket."""
    commands = ("generate", "serve", "uploads")
    return [OptionGroup(name="s3", settings=S3Options, commands=commands, ignored_by=("explain",))]


@hookimpl
def sglang_register_storage_uploaders() -> list[StorageUploader]:
    """Add ``--cloud-storage-type s3``."""
    return [S3Uploader()]


@hookimpl
def sglang_register_checks() -> list[Check]:
    """Ask whether the bucket of the environment can be written to."""
    return [Check(name="s3", run=_check_bucket)]


def _check_bucket() -> CheckResult:
    from .checks import check_bucket  # only in the doctor

    return check_bucket()
