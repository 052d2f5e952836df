"""From settings to a client of the bucket; nothing is sent."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from attrs import frozen
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.helpers import check_bucket_name
from minio.sse import Sse, SseKMS, SseS3

from sglang_core import ConfigError, Origin

from .config import S3Options
from .credentials import CredentialChain, found_credentials
from .keys import KeyTemplate
from .transport import PatientPool

_AWS = "https://s3.amazonaws.com"
_DEFAULT_REGION = "us-east-1"
_REGION_IN_HOST = re.compile(r"^s3[.-](?:dualstack\.)?([a-z]{2}[a-z-]*-\d)\.amazonaws\.com")


@frozen(kw_only=True)
class Connection:
    """What the storage works with."""

    bucket: str
    keys: KeyTemplate
    sse: Sse | None
    credentials: CredentialChain
    pool: PatientPool
    client: Minio
    #: What plain URLs begin with.
    base_url: str


def connect(options: S3Options, origin: Callable[[str], Origin], is_closing: threading.Event) -> Connection:
    """Return the client of the bucket that the settings describe.

    :param origin: where the setting of a name came from, for messages.
    :param is_closing: ends pauses between attempts.
    :raises ConfigError: if a setting is missing or wrong, or two do not go together.
    """
    return _Builder(options, origin).build(is_closing)


class _Builder:
    def __init__(self, options: S3Options, origin: Callable[[str], Origin]) -> None:
        self._options = options
        self._origin = origin
        self._endpoint = (options.s3_endpoint_url or _AWS).rstrip("/")
        self._region = _region(options, self._endpoint)

    def build(self, is_closing: threading.Event) -> Connection:
        options = self._options
        bucket = self._checked_bucket()
        credentials = self._credential_chain()
        pool = PatientPool(max_attempts=options.s3_max_attempts, timeout_s=options.s3_timeout_s, is_closing=is_closing)
        return Connection(
            bucket=bucket,
            keys=self._key_template(),
            sse=self._encryption(),
            credentials=credentials,
            pool=pool,
            client=self._create_client(credentials, pool),
            base_url=self._public_base(bucket),
        )

    def _checked_bucket(self) -> str:
        name = self._options.s3_bucket_name
        if not name:
            raise ConfigError("no bucket is set for the storage s3", "set SGLANG_S3_BUCKET_NAME or --s3-bucket-name")
        with self._refusing("s3_bucket_name", "give the name of a bucket: 3 to 63 of a-z, 0-9, '.' and '-'"):
            check_bucket_name(name, strict=True)
        return name

    def _key_template(self) -> KeyTemplate:
        options = self._options
        with self._refusing("s3_key_template", "for example --s3-key-template '{date}/{id}_{index}.{extension}'"):
            template = KeyTemplate(prefix="", template=options.s3_key_template)
        with self._refusing("s3_prefix", "give a folder, for example --s3-prefix pictures/2024"):
            template = KeyTemplate(prefix=options.s3_prefix, template=options.s3_key_template)
            template.below_prefix("x")
        return template

    def _encryption(self) -> Sse | None:
        kind, key_id = self._options.s3_encryption, self._options.s3_kms_key_id
        if kind == "kms":
            if not key_id:
                raise ConfigError(f"{self._label('s3_encryption')}: kms needs a key", "set --s3-kms-key-id")
            return SseKMS(key_id, {})
        if key_id:
            problem = f"{self._label('s3_kms_key_id')} does not apply: s3_encryption is {kind}, not kms"
            raise ConfigError(problem, "add --s3-encryption kms, or leave the key out")
        return SseS3() if kind == "s3" else None

    def _credential_chain(self) -> CredentialChain:
        options = self._options
        access_key, secret_key = options.s3_access_key_id, options.s3_secret_access_key
        if access_key and secret_key:
            return CredentialChain([StaticProvider(access_key, secret_key, options.s3_session_token)])
        if access_key or secret_key:
            given, missing = ("s3_access_key_id", "s3_secret_access_key")[:: 1 if access_key else -1]
            problem = f"{self._label(given)} is set, but {missing} is not"
            raise ConfigError(problem, f"set SGLANG_{missing.upper()}, or neither")
        if options.s3_session_token:
            problem = f"{self._label('s3_session_token')} does not apply: no access key is set"
            raise ConfigError(problem, "set SGLANG_S3_ACCESS_KEY_ID and SGLANG_S3_SECRET_ACCESS_KEY")
        return found_credentials()

    def _create_client(self, credentials: CredentialChain, pool: PatientPool) -> Minio:
        address = urlsplit(self._endpoint)
        with self._refusing("s3_endpoint_url", "give scheme, host and port, for example https://minio.example.com"):
            if address.path:
                raise ValueError("an endpoint takes no path")
            client = Minio(
                address.netloc,
                secure=address.scheme.lower() == "https",
                region=self._region,
                http_client=pool,
                credentials=credentials,
            )
        if self._options.s3_addressing_style == "virtual":
            client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]  # minio does not type it
        elif self._options.s3_addressing_style == "path":
            client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]  # minio does not type it
        return client

    def _public_base(self, bucket: str) -> str:
        """Return what plain URLs begin with."""
        options, address = self._options, urlsplit(self._endpoint)
        if options.s3_public_url:
            if options.s3_url_kind == "presigned":
                problem = f"{self._label('s3_public_url')} does not apply: URLs are signed for the endpoint itself"
                raise ConfigError(problem, "leave it out, or set --s3-url-kind public")
            return options.s3_public_url
        host = address.netloc
        is_aws = options.s3_endpoint_url is None
        if is_aws:
            host = f"s3.{self._region}.amazonaws.com"
        style = options.s3_addressing_style
        # a bucket with a dot in its name fits no certificate
        if style == "virtual" or (style == "auto" and is_aws and "." not in bucket):
            return f"{address.scheme}://{bucket}.{host}"
        return f"{address.scheme}://{host}/{bucket}"

    @contextmanager
    def _refusing(self, name: str, remedy: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ConfigError(f"{self._label(name)}: {error}", remedy) from None

    def _label(self, name: str) -> str:
        return self._origin(name).label if self._origin(name).kind != "default" else name


def _region(options: S3Options, endpoint: str) -> str:
    """Return the region that requests are signed for; never asked from the storage, which takes a right of its own."""
    in_host = _REGION_IN_HOST.match(urlsplit(endpoint).hostname or "")
    in_environment = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return options.s3_region_name or (in_host[1] if in_host else None) or in_environment or _DEFAULT_REGION
