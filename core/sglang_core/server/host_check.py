"""Which host names a request may call the server by, and which web pages may send it something.

A server on this machine without keys is reached by every web page that the user opens, unless somebody looks: a page
can give its own name the server's address (DNS re-binding), or simply send a form there.
"""

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Asked by balancers under the machine's address, and nobody's secret.
_PROBED = frozenset({"/liveness", "/health", "/health_generate"})


class HostCheck:
    """Refuses requests that name a host which is not among the trusted ones.

    :param hosts: names and ``*.names``; ``None``: every name is good.
    """

    def __init__(self, app: "ASGIApp", hosts: tuple[str, ...] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Look at the Host header."""
        if scope["type"] not in {"http", "websocket"} or self._hosts is None or scope["path"] in _PROBED:
            await self._app(scope, receive, send)
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        name = host_name(given[0]) if len(given) == 1 else None
        if name is not None and is_trusted(name, self._hosts):
            await self._app(scope, receive, send)
            return
        message = "the Host header of the request names no host of this server; add it with --trusted-host"
        await ApiError(400, message, code="untrusted_host").response()(scope, receive, send)


class OriginCheck:
    """Refuses what pages of other origins send, where no key protects the server.

    :param origins: those that CORS lets call.
    """

    def __init__(self, app: "ASGIApp", origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Look at the Origin header, which browsers send and no page can forge."""
        headers = dict(scope.get("headers", ()))
        origin = headers.get(b"origin", b"").decode("latin-1")
        is_free = scope["type"] != "http" or scope["method"] in _SAFE_METHODS or not origin or "*" in self._origins
        host = headers.get(b"host", b"").decode("latin-1")
        if is_free or origin in self._origins or origin.partition("://")[2].lower() == host.lower() != "":
            await self._app(scope, receive, send)
            return
        message = "web pages of other origins may not send this; allow the page's origin with --cors-origin"
        await ApiError(403, message, code="cross_origin_request").response()(scope, receive, send)


def host_name(header: str) -> str | None:
    """Return the name in a Host header, without port, in lower case; ``None`` if it is no host."""
    try:
        parts = urlsplit(f"//{header}")
        name = parts.hostname
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    if not name or parts.username is not None or parts.path or parts.query or any(c.isspace() for c in header):
        return None
    return name.rstrip(".")


def is_trusted(name: str, hosts: tuple[str, ...]) -> bool:
    """Say whether a host name is among ``hosts``; ``loopback`` stands for all names and addresses of this machine."""
    for host in hosts:
        pattern = host.lower().strip("[]")
        if pattern == "*" or name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:])):
            return True
        if pattern == "loopback" and is_loopback(name):
            return True
    return False


def is_loopback(name: str) -> bool:
    """Say whether a host name or address can only mean this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
