"""One line for each request, and a record of it for plugins that count."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from ..log_lines import log_fields

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

#: The client went away before the answer was complete (a number that web servers use in their logs, no real status).
CLIENT_CLOSED = 499


@frozen(kw_only=True)
class AccessRecord:
    """What became of one HTTP request."""

    request_id: str
    method: str
    #: As it was sent, without the query, which may hold what is nobody's business.
    path: str
    #: Template of the route that served it (``/v1/videos/{id}``); empty if none did.
    route: str
    status: int
    duration_s: float
    #: Bytes of the answer's body.
    num_bytes: int
    #: Address, empty for Unix sockets.
    client: str
    #: Name of the API key.
    key: str
    http_version: str


AccessListener = Callable[[AccessRecord], None]


class AccessLog:
    """Logs every request when its answer ends, and tells the listeners."""

    def __init__(self, app: "ASGIApp", listeners: Sequence[AccessListener], excluded: tuple[str, ...] = ()) -> None:
        self._app = app
        self._listeners = listeners
        self._excluded = excluded

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Watch the answer go out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with log_fields():  # to which the layers inside add what they know
            await self._watched(scope, receive, send)

    async def _watched(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        started = time.perf_counter()
        status, num_bytes, is_complete = 500, 0, False

        async def watch(message: "Message") -> None:
            nonlocal status, num_bytes, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                num_bytes += len(message.get("body", b""))
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - started
            self._tell(_record(scope, status if is_complete else CLIENT_CLOSED, seconds, num_bytes))

    def _tell(self, record: AccessRecord) -> None:
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:  # a plugin's: its fault must not become the request's
                logger.exception("a listener to requests failed")
        if logger.isEnabledFor(logging.INFO) and not record.path.startswith(self._excluded or ("\0",)):
            logger.info("%s", _line(record), extra={"fields": asdict(record)})


def _record(scope: "Scope", status: int, duration_s: float, num_bytes: int) -> AccessRecord:
    state: dict[str, Any] = scope.get("state", {})
    key = state.get("api_key")
    raw_path: bytes = scope.get("raw_path") or b""
    return AccessRecord(
        request_id=state.get("request_id", ""),
        method=scope["method"][:20],
        path=raw_path[:2000].decode("latin-1").encode("unicode_escape").decode("ascii"),
        route=getattr(scope.get("route"), "path", ""),
        status=status,
        duration_s=round(duration_s, 6),
        num_bytes=num_bytes,
        client=str(scope["client"][0]) if scope.get("client") else "",
        key=key.name if key is not None else "",
        http_version=scope.get("http_version", ""),
    )


def _line(record: AccessRecord) -> str:
    key = f" key={record.key}" if record.key else ""
    return (
        f"{record.method} {record.path} {record.status} {record.duration_s * 1000:.1f} ms {record.num_bytes} B "
        f"{record.client or 'local'}{key} {record.request_id}"
    )
