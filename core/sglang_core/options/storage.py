"""Where finished files go besides the local folder."""

from attrs import frozen

from .fields import option


@frozen(kw_only=True)
class StorageOptions:
    """Storage."""

    cloud_storage_type: str | None = option(
        default=None,
        env="SGLANG_CLOUD_STORAGE_TYPE",
        metavar="NAME",
        help="Upload finished files to this kind of storage, for example s3, and delete them here.",
    )
