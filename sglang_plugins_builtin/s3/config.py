"""Which bucket, with which rights, under which names."""

from typing import Any, Literal

from attrs import frozen, validators

from sglang_core import option

#: What signed URLs allow: seven days.
MAX_EXPIRY_S = 7 * 24 * 3600


def _is_web_address(instance: object, attribute: Any, url: str | None) -> None:
    """Refuse what is no plain address. The value is not repeated: it may have a password in it."""
    if url is None:
        return
    scheme, separator, rest = url.partition("://")
    host = rest.partition("/")[0]
    if not separator or scheme.lower() not in ("http", "https") or not host:
        raise ValueError("expected an address that begins with https:// or http://")
    if "@" in host:
        raise ValueError("an address takes no user name or password")
    if "?" in rest or "#" in rest:
        raise ValueError("an address takes no query and no fragment")


@frozen(kw_only=True)
class S3Options:
    """S3 storage."""

    s3_bucket_name: str | None = option(
        default=None, env="SGLANG_S3_BUCKET_NAME", metavar="NAME", help="Bucket that files are uploaded to."
    )
    s3_access_key_id: str | None = option(
        default=None,
        env="SGLANG_S3_ACCESS_KEY_ID",
        is_secret=True,
        help="Access key; without one, keys are looked for where AWS programs keep them.",
    )
    s3_secret_access_key: str | None = option(
        default=None, env="SGLANG_S3_SECRET_ACCESS_KEY", is_secret=True, help="Secret key that belongs to it."
    )
    s3_session_token: str | None = option(
        default=None, env="SGLANG_S3_SESSION_TOKEN", is_secret=True, help="Session token of temporary keys."
    )
    s3_endpoint_url: str | None = option(
        default=None,
        env="SGLANG_S3_ENDPOINT_URL",
        metavar="URL",
        validator=_is_web_address,
        help="Address of the storage, for example https://minio.example.com; AWS if unset.",
    )
    s3_region_name: str | None = option(
        default=None,
        env="SGLANG_S3_REGION_NAME",
        metavar="NAME",
        help="Region of the bucket; AWS_REGION, AWS_DEFAULT_REGION or us-east-1 if unset.",
    )
    s3_prefix: str = option(default="", env="SGLANG_S3_PREFIX", help="What every object's key begins with: a folder.")
    s3_key_template: str = option(
        default="{name}",
        env="SGLANG_S3_KEY_TEMPLATE",
        metavar="TEMPLATE",
        help="Key below the prefix, made of {name}, {stem}, {extension}, {id}, {index}, {kind} and {date}.",
    )
    s3_url_kind: Literal["public", "presigned"] = option(
        default="public",
        env="SGLANG_S3_URL_KIND",
        help="URLs in answers: plain ones, for a bucket that everybody may read, or signed ones that expire.",
    )
    s3_url_expiry_s: int = option(
        default=24 * 3600,
        env="SGLANG_S3_URL_EXPIRY_S",
        validator=[validators.ge(1), validators.le(MAX_EXPIRY_S)],
        help="Seconds until a signed URL expires.",
    )
    s3_public_url: str | None = option(
        default=None,
        env="SGLANG_S3_PUBLIC_URL",
        metavar="URL",
        validator=_is_web_address,
        help="What plain URLs begin with in place of endpoint and bucket, for example a CDN.",
    )
    s3_encryption: Literal["none", "s3", "kms"] = option(
        default="none",
        env="SGLANG_S3_ENCRYPTION",
        help="Encryption that the storage is asked for: with its own keys (SSE-S3), or one of yours (SSE-KMS).",
    )
    s3_kms_key_id: str | None = option(
        default=None, env="SGLANG_S3_KMS_KEY_ID", metavar="ID", help="Key of the KMS to encrypt with."
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = option(
        default="auto",
        env="SGLANG_S3_ADDRESSING_STYLE",
        help="Bucket in the path or in the host name of requests; auto: host name on AWS, path elsewhere.",
    )
    s3_max_attempts: int = option(
        default=5,
        env="SGLANG_S3_MAX_ATTEMPTS",
        validator=[validators.ge(1), validators.le(10)],
        help="Attempts for each request, with growing pauses in between.",
    )
    s3_timeout_s: float = option(
        default=60.0,
        env="SGLANG_S3_TIMEOUT_S",
        validator=[validators.gt(0), validators.le(600)],
        help="Seconds to wait for the storage to say something.",
    )
