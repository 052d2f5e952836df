"""Headers that keep browsers from doing more with an answer than it is meant for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
#: For what a browser would run if it could; a page brings its own policy.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
_GUARDED_TYPES = (b"text/", b"application/")


class SecurityHeaders:
    """Adds to every answer the headers that its endpoint has not set itself."""

    def __init__(self, app: "ASGIApp", is_shared: bool) -> None:
        self._app = app
        #: Whether pages of other origins may embed what is served: those that CORS lets call.
        self._resource_policy = (b"cross-origin-resource-policy", b"cross-origin" if is_shared else b"same-origin")

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Complete the headers of the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: "Message") -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name.lower(): value for name, value in headers}
                wanted = [*_ALWAYS, self._resource_policy]
                if given.get(b"content-type", b"").startswith(_GUARDED_TYPES):
                    wanted.append(_POLICY)
                message["headers"] = [*headers, *(pair for pair in wanted if pair[0] not in given)]
            await send(message)

        await self._app(scope, receive, send_guarded)
