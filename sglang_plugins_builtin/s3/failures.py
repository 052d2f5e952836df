"""What went wrong, in one sentence with a remedy and without a secret."""

import re
from collections.abc import Iterable

from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from sglang_core import OutputError

from .credentials import NoCredentialsError

_KEYS = "check SGLANG_S3_ACCESS_KEY_ID and SGLANG_S3_SECRET_ACCESS_KEY"
_RIGHTS = "give the key the right to write there (s3:PutObject, s3:AbortMultipartUpload), or use another key"
_AGAIN = "repeat it later"
_REGION = "set the region of the bucket with --s3-region-name (SGLANG_S3_REGION_NAME)"
_BUCKET = "create the bucket, or correct --s3-bucket-name (SGLANG_S3_BUCKET_NAME)"
_KMS = "check --s3-kms-key-id (SGLANG_S3_KMS_KEY_ID) and the rights of the access key to use it"
_TOKEN = "renew the temporary keys and their SGLANG_S3_SESSION_TOKEN"  # noqa: S105 - a sentence
_ENDPOINT = "check --s3-endpoint-url (SGLANG_S3_ENDPOINT_URL) and the network"

_BY_CODE = {
    "NoSuchBucket": ("there is no such bucket", _BUCKET),
    "NoSuchKey": ("there is no such object", "it may have been deleted, or be in another bucket"),
    "AccessDenied": ("access is denied", _RIGHTS),
    "AllAccessDisabled": ("access is denied", _RIGHTS),
    "InvalidAccessKeyId": ("the access key is unknown there", _KEYS),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", _KEYS),
    "ExpiredToken": ("the session token has expired", _TOKEN),
    "InvalidToken": ("the session token is not right", _TOKEN),
    "InvalidTokenId": ("the session token is not right", _TOKEN),
    "TokenRefreshRequired": ("the session token has expired", _TOKEN),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "set the clock of this machine (NTP)"),
    "PermanentRedirect": ("the bucket is in another region", _REGION),
    "Redirect": ("the bucket is in another region", _REGION),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", _REGION),
    "EntityTooLarge": ("the file is larger than the storage takes", "make a smaller file, or raise the limit there"),
    "QuotaExceeded": ("the quota there is used up", "delete something there, or raise the quota"),
    "XMinioStorageFull": ("the storage is full", "free some space there"),
    "KMS.NotFoundException": ("there is no such KMS key", _KMS),
    "KMS.DisabledException": ("the KMS key is disabled", _KMS),
    "InvalidRange": ("the object has no such bytes", "ask for a range inside the object"),
    "MethodNotAllowed": ("it does not take uploads at this address", _ENDPOINT),
    "SlowDown": ("it is too busy", _AGAIN),
    "ServiceUnavailable": ("it is not available", _AGAIN),
    "InternalError": ("it has an internal error", _AGAIN),
    "RequestTimeout": ("the connection is too slow", _AGAIN),
}
_SIGNED = re.compile(r"((?:X-Amz-)?(?:Signature|Credential|Security-Token)=)[^&,\s\"']+", re.IGNORECASE)


def output_error(error: Exception, what: str, secrets: Iterable[str]) -> OutputError:
    """Return the error that a user sees.

    :param what: what was tried, for example ``cannot upload 'star.png' to bucket 'pictures'``.
    :param secrets: values that must not be shown, whatever the storage answered.
    """
    reason, remedy = _reason(error)
    return OutputError(redacted(f"{what}: {reason}", secrets), remedy)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets and signatures."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SIGNED.sub(r"\1***", text)


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, S3Error):
        code = error.code or "unknown"
        if code.startswith("KMS.") and code not in _BY_CODE:
            return f"the KMS refuses the key ({code})", _KMS
        return _BY_CODE.get(code, (f"the storage refuses it ({code}: {_one_line(error.message or '')})", _AGAIN))
    if isinstance(error, ServerError):
        return _by_status(error.status_code)
    if isinstance(error, InvalidResponseError):
        status = re.search(r"Response code: (\d+)", str(error))
        return _by_status(int(status[1]) if status else 0)
    if isinstance(error, NoCredentialsError):
        where = "set SGLANG_S3_ACCESS_KEY_ID and SGLANG_S3_SECRET_ACCESS_KEY, or those of AWS"
        return "there are no keys: none are set, and none are found where AWS programs keep them", where
    if isinstance(error, HTTPError):
        return _network_reason(error)
    if isinstance(error, OSError):
        return f"the file cannot be read: {error.strerror or error}", "see whether the file is still there"
    return f"{type(error).__name__}: {_one_line(str(error))}", _ENDPOINT


def _by_status(status: int) -> tuple[str, str]:
    if status == 403:
        return _BY_CODE["AccessDenied"]
    if status >= 500:
        return f"it answers with status {status}", _AGAIN
    return f"what answers there is no S3 storage (status {status})", _ENDPOINT


def _network_reason(error: HTTPError) -> tuple[str, str]:
    if isinstance(error, NameResolutionError):
        return "there is no host of that name", _ENDPOINT
    if isinstance(error, NewConnectionError):
        return "nothing answers at the endpoint", _ENDPOINT
    if isinstance(error, HTTPTimeoutError):
        return "the storage does not answer in time", f"{_AGAIN}, or raise --s3-timeout-s (SGLANG_S3_TIMEOUT_S)"
    if isinstance(error, SSLError):
        own = "for a certificate of your own, set SSL_CERT_FILE"
        return f"TLS fails: {_one_line(str(error))}", f"check --s3-endpoint-url (SGLANG_S3_ENDPOINT_URL); {own}"
    return "the connection breaks off", _AGAIN


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."
