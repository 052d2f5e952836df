"""What answers before the application is there, and what refuses work while the server stops."""

from typing import TYPE_CHECKING

from .context import Health
from .errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Front:
    """The innermost layer of the host: hands requests to the application as soon as there is one."""

    def __init__(self) -> None:
        #: Set when the model is found and planned.
        self.app: ASGIApp | None = None
        self.is_stopping = False

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif self.is_stopping and scope["method"] not in _READING:
            message = "the server is stopping; send the request again in a moment"
            error = ApiError(503, message, code="server_stopping", headers={"Retry-After": "5"})
            await error.response()(scope, receive, send)
        elif self.app is not None:
            await self.app(scope, receive, send)
        else:
            await self._answer_early(scope, receive, send)

    async def _answer_early(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import JSONResponse

        if scope["path"] == "/liveness":
            await JSONResponse({"status": "ok"})(scope, receive, send)
            return
        health = Health("starting", "the model is being looked for", "wait a moment")
        headers = {"Retry-After": "1"}
        if scope["path"] in {"/health", "/health_generate"}:
            await JSONResponse(health.to_json(), status_code=503, headers=headers)(scope, receive, send)
            return
        error = ApiError(503, "the server is starting; try again in a moment", code="server_starting", headers=headers)
        await error.response()(scope, receive, send)


async def _answer_lifespan(receive: "Receive", send: "Send") -> None:
    """Agree to everything: the application's life is the server's own business."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
