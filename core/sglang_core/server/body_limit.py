"""The largest body that a request may have, as it declares it and as it arrives."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A client that was answered early and goes on sending is listened to for so long: with the connection closed at once,
#: many would see a broken pipe in place of the answer.
_LINGER_S = 2.0
#: A body that stands still for so long is given up: it holds a connection and perhaps a temporary file.
_STALLED_S = 60.0


class BodyLimit:
    """Refuses larger bodies with status 413, and lets clients finish what nobody read."""

    def __init__(self, app: "ASGIApp", max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Refuse by the declared length, else count what arrives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, send, self._max_bytes)
        if body.declares_too_much:
            await body.error().response()(scope, body.receive, body.send)
        else:
            await self._app(scope, body.receive, body.send)
        await body.finish()


class _Body:
    """The body of one request on its way in, and the end of the answer."""

    def __init__(self, scope: "Scope", receive: "Receive", send: "Send", max_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._num_bytes = 0
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        is_long = declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes)
        self.declares_too_much = is_long
        self._is_http1 = scope["http_version"] in {"1.0", "1.1"}
        self._is_read = not is_long and declared in {b"", b"0"} and b"transfer-encoding" not in headers
        #: HTTP/2 may send a body without announcing it.
        self._is_read = self._is_read and (self._is_http1 or scope["method"] in {"GET", "HEAD", "OPTIONS", "DELETE"})
        self._is_held = False

    def error(self) -> ApiError:
        """Return the refusal."""
        message = f"the body is larger than {self._max_bytes:,} bytes; send a smaller one"
        return ApiError(413, message, code="body_too_large", headers=self._closing())

    def _closing(self) -> dict[str, str]:
        return {"Connection": "close"} if self._is_http1 else {}  # HTTP/2 has no such header

    async def receive(self) -> "Message":
        """Pass on what arrives.

        :raises ApiError: once it is more than allowed, or does not go on.
        """
        try:
            # After the body there is only the client's going away to wait for.
            async with asyncio.timeout(None if self._is_read else _STALLED_S):
                message = await self._receive()
        except TimeoutError:
            self._is_read = True
            message_text = f"the body of the request stood still for {_STALLED_S:g} s"
            raise ApiError(408, message_text, code="request_timeout", headers=self._closing()) from None
        if message["type"] != "http.request":
            self._is_read = True
            return message
        self._num_bytes += len(message.get("body", b""))
        self._is_read = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            raise self.error()
        return message

    async def send(self, message: "Message") -> None:
        """Pass on the answer, but hold back its end while the client is still sending."""
        is_end = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_end and not self._is_read:
            self._is_held = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Throw away what nobody read, for a while; then end the answer."""
        if not self._is_held:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while not self._is_read:
                    message = await self._receive()
                    self._is_read = message["type"] != "http.request" or not message.get("more_body", False)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
