"""Requests to the storage, repeated where that can help."""

import logging
import os
import random
import threading
from typing import Any

import certifi
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

logger = logging.getLogger(__name__)

_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_CONNECT_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0


class PatientPool(urllib3.PoolManager):
    """Connections that try again, with pauses that grow and differ, while the storage is away or busy.

    Repeating is safe for what is sent here: whole objects and numbered parts are replaced by themselves, and a
    repeated end of a multipart upload is told apart by whoever asked for it.

    :param max_attempts: for each request.
    :param timeout_s: seconds to wait for data; a connection has at most ten.
    :param is_closing: ends pauses; no request is repeated any more.
    """

    def __init__(self, *, max_attempts: int, timeout_s: float, is_closing: threading.Event) -> None:
        super().__init__(
            num_pools=4,
            maxsize=8,
            timeout=urllib3.Timeout(connect=min(timeout_s, _CONNECT_TIMEOUT_S), read=timeout_s),
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        )
        self._max_attempts = max_attempts
        self._is_closing = is_closing

    def urlopen(  # type: ignore[override]  # urllib3 types it per Python version
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request until it is answered by more than "busy", or the attempts are used up."""
        kw["retries"] = False
        attempt = 1
        while True:
            is_last = attempt >= self._max_attempts or self._is_closing.is_set()
            try:
                response = super().urlopen(method, url, redirect=False, **kw)
                if is_last or not _is_busy(response, is_read=kw.get("preload_content", True)):
                    return response
                reason, wanted_s = f"status {response.status}", _retry_after(response)
                response.drain_conn()
            except (NewConnectionError, ProtocolError, HTTPTimeoutError, SSLError) as error:
                if is_last or _is_refused_certificate(error):
                    raise
                reason, wanted_s = type(error).__name__, 0.0
            logger.debug("%s: attempt %d of %d failed: %s", method, attempt, self._max_attempts, reason)
            self._is_closing.wait(max(wanted_s, pause_s(attempt)))
            attempt += 1


def pause_s(attempt: int) -> float:
    """Return the seconds to wait after an attempt: doubling, with jitter, so that many clients do not come at once."""
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 - spreads requests, guards nothing


def _is_busy(response: urllib3.BaseHTTPResponse, is_read: bool) -> bool:
    if response.status in _BUSY:
        return True
    # S3's own word for a connection on which the body came too slowly
    return response.status == 400 and is_read and b"<Code>RequestTimeout</Code>" in response.data


def _retry_after(response: urllib3.BaseHTTPResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isdecimal() else 0.0


def _is_refused_certificate(error: HTTPError) -> bool:
    text = str(error).lower()
    return isinstance(error, SSLError) and ("certificate" in text or "wrong_version" in text)
