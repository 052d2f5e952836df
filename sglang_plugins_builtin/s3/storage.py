"""A bucket that is open."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from minio.error import S3Error
from minio.helpers import DictType
from urllib3.exceptions import HTTPError

from sglang_core import Origin, OutputError, StoredObject, UploadItem

from .config import S3Options
from .connection import connect
from .failures import output_error
from .keys import object_url
from .transport import pause_s

#: The memory that an upload takes: two parts, whatever the size of the file. Up to 160 GB fit in the 10,000 parts.
PART_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**16
#: Names an upload, so that one whose answer was lost can be found to have worked.
_MARK = "x-amz-meta-sglang-upload"


class _NotKeptError(Exception):
    """The storage answered that a file is uploaded, or once knew the upload, and it is not there."""


class S3Storage:
    """A bucket, with the settings that were given for it. Every method may be called from any thread.

    :param origin: where the setting of a name came from, for messages.
    :raises ConfigError: if a setting is missing or wrong, or two do not go together.
    """

    def __init__(self, options: S3Options, origin: Callable[[str], Origin]) -> None:
        self._options = options
        self._is_closing = threading.Event()
        self._connection = connect(options, origin, self._is_closing)
        self._bucket = self._connection.bucket
        self._client = self._connection.client

    def check(self) -> None:
        """See that the bucket is there and may be written to: begin a multipart upload and take it back.

        :raises OutputError: if not, with the reason and a remedy.
        """
        key = self._connection.keys.below_prefix(f".sglang-check-{secrets.token_hex(8)}")
        sse = self._connection.sse
        headers: DictType = {"Content-Type": "application/octet-stream"}
        headers.update(sse.headers() if sse else {})
        with self._told(f"bucket {self._bucket!r} cannot be written to"):
            # the two calls that put_object() makes: no object ever appears, not even a deleted version of one
            upload_id = self._client._create_multipart_upload(self._bucket, key, headers)
            self._client._abort_multipart_upload(self._bucket, key, upload_id)

    def upload(self, item: UploadItem) -> StoredObject:
        """Upload one file.

        :raises OutputError: when every attempt has failed; nothing half-made is visible.
        """
        with self._told(f"cannot upload {item.path.name!r} to bucket {self._bucket!r}"):
            if self._is_closing.is_set():
                raise OutputError(f"bucket {self._bucket!r} is closed", "open the storage again")
            key = self._connection.keys.key(item)
            attempt = 1
            while not self._put(key, item, mark=secrets.token_hex(16)):
                if attempt >= self._options.s3_max_attempts or self._is_closing.wait(pause_s(attempt)):
                    raise _NotKeptError
                attempt += 1
        return StoredObject(key=key, url=self.url_of(key))

    def _put(self, key: str, item: UploadItem, mark: str) -> bool:
        """Upload a file; say whether it is there."""
        with item.path.open("rb") as file:
            try:
                result = self._client.put_object(
                    self._bucket,
                    key,
                    file,
                    os.fstat(file.fileno()).st_size,
                    content_type=item.media_type,
                    metadata={_MARK: mark},
                    sse=self._connection.sse,
                    part_size=PART_BYTES,
                    num_parallel_uploads=1,  # the memory stays small; several files are uploaded side by side
                )
            except S3Error as error:
                # the end of a multipart upload, repeated after its answer was lost, does not find it any more
                if error.code != "NoSuchUpload":
                    raise
                return self._is_there(key, mark)
        # the end of a multipart upload may answer "200" and then say in the body that it has failed
        return bool(result.etag) or self._is_there(key, mark)

    def _is_there(self, key: str, mark: str) -> bool:
        try:
            found = self._client.stat_object(self._bucket, key)
        except S3Error:
            return False
        return bool(found.metadata and found.metadata.get(_MARK) == mark)

    def url_of(self, key: str) -> str:
        """Return a URL of an object: a plain one, or one that is signed now and expires."""
        if self._options.s3_url_kind == "public":
            return object_url(self._connection.base_url, key)
        with self._told(f"cannot sign a URL for bucket {self._bucket!r}"):
            expires = timedelta(seconds=self._options.s3_url_expiry_s)
            return self._client.presigned_get_object(self._bucket, key, expires=expires)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of an object; where the connection breaks, reading goes on from there.

        :raises OutputError: if it cannot be read, or was replaced meanwhile.
        """
        done, attempt, etag = 0, 1, ""
        while length is None or done < length:
            with self._told(f"cannot read {key!r} from bucket {self._bucket!r}"):
                rest = 0 if length is None else length - done
                only_same: DictType = {"If-Match": etag} if etag else {}
                response = self._client.get_object(
                    self._bucket, key, offset=start + done, length=rest, request_headers=only_same
                )
            try:
                etag = response.headers.get("etag", "")
                for chunk in response.stream(_CHUNK_BYTES):
                    done += len(chunk)
                    attempt = 1
                    yield chunk
                return
            except HTTPError as error:
                if attempt >= self._options.s3_max_attempts or self._is_closing.wait(pause_s(attempt)):
                    raise self._error(error, f"cannot read {key!r} from bucket {self._bucket!r}") from None
                attempt += 1
            finally:
                response.close()
                response.release_conn()

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is no error."""
        with self._told(f"cannot delete {key!r} from bucket {self._bucket!r}"):
            try:
                self._client.remove_object(self._bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise

    def close(self) -> None:
        """Release connections. What is under way is not repeated any more; closing twice does nothing."""
        self._is_closing.set()
        self._connection.pool.clear()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn whatever the body raises into one sentence; the exceptions of others may have secrets in them."""
        try:
            yield
        except OutputError:
            raise
        except Exception as error:  # minio, urllib3, the file: all kinds
            raise self._error(error, what) from None

    def _error(self, error: Exception, what: str) -> OutputError:
        if isinstance(error, _NotKeptError):
            return OutputError(f"{what}: the storage did not keep it", "repeat it later")
        options = self._options
        given = (options.s3_secret_access_key, options.s3_access_key_id, options.s3_session_token)
        return output_error(error, what, {*filter(None, given), *self._connection.credentials.secrets})
