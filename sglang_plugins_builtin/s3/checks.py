"""What ``sglang doctor`` asks about the bucket."""

from sglang_core import CheckResult, OptionGroup, SglangError, StorageOptions, settings_from_environment

from .config import S3Options
from .uploader import S3Uploader


def check_bucket() -> CheckResult:
    """See whether the bucket that the environment names can be written to. Without one nothing is sent."""
    groups = [OptionGroup(name=group.__name__, settings=group) for group in (StorageOptions, S3Options)]
    settings = settings_from_environment(*groups)
    kind = (settings.of(StorageOptions).cloud_storage_type or "").strip().lower()
    if kind != S3Uploader.name:
        return CheckResult(status="ok", message="not used: SGLANG_CLOUD_STORAGE_TYPE is not s3")
    availability = S3Uploader().probe()
    if not availability.is_available:
        return CheckResult(status="problem", message=availability.reason, remedy=availability.remedy)
    storage = S3Uploader().open(settings)
    try:
        storage.check()
    except SglangError as error:
        return CheckResult(status="problem", message=error.problem, remedy=error.remedy)
    finally:
        storage.close()
    return CheckResult(status="ok", message=f"bucket {settings.of(S3Options).s3_bucket_name} can be written to")
