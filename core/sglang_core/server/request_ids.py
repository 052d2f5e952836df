"""An id for every request, in its answer and in the log; and the answer of last resort."""

import logging
import re
import secrets
from typing import TYPE_CHECKING

from ..log_lines import add_log_fields
from .errors import internal_error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

HEADER = "x-request-id"
#: What of a client's own id is kept: it goes into headers, logs and records.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestIds:
    """Takes the id of ``X-Request-Id`` where it is plain, else makes one; answers what nobody else caught."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Number the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        add_log_fields(request_id=request_id)
        has_begun = False

        async def send_numbered(message: "Message") -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", ()), (HEADER.encode(), request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_numbered)
        except Exception:  # a layer of a plugin may raise anything
            if not scope["state"].get("is_logged"):
                logger.exception("request %s failed: %s", request_id, scope["method"][:20])
            if not has_begun:
                await internal_error(request_id).response()(scope, receive, send_numbered)


def _given_id(scope: "Scope") -> str:
    values = [value for name, value in scope["headers"] if name == HEADER.encode()]
    return values[0].decode("ascii") if len(values) == 1 and _ACCEPTED.fullmatch(values[0]) else ""
