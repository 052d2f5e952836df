"""One span for each HTTP request, below that of the client who sends ``traceparent``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import propagate
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_span_id, format_trace_id

from sglang_core import add_log_fields

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Methods that make names of spans; what a client makes up does not.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestTraces:
    """Traces the requests that pass through, but for those whose path begins with one of ``excluded``."""

    def __init__(self, app: ASGIApp, tracer: Tracer, excluded: tuple[str, ...] = ()) -> None:
        self._app = app
        self._tracer = tracer
        self._excluded = excluded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request within its span."""
        if scope["type"] != "http" or scope["path"].startswith(self._excluded or ("\0",)):
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            method,
            context=propagate.extract(_headers(scope)),
            kind=SpanKind.SERVER,
            attributes=_attributes(scope, method),
            record_exception=False,  # its text may hold what is nobody's business; the log has it
            set_status_on_exception=False,
        ) as span:
            known = span.get_span_context()
            add_log_fields(trace_id=format_trace_id(known.trace_id), span_id=format_span_id(known.span_id))
            status = 499  # the client was gone before there was an answer

            async def watch(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, watch)
            except Exception:
                status = 500
                raise
            finally:
                _describe_end(span, scope, method, status)


def _describe_end(span: Span, scope: Scope, method: str, status: int) -> None:
    route = getattr(scope.get("route"), "path", "")
    if route:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers by name in lower case; of several with one name the values in their order."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def _attributes(scope: Scope, method: str) -> dict[str, Any]:
    """Return what the conventions for HTTP spans ask for, without the query, which may hold secrets."""
    attributes: dict[str, Any] = {
        "http.request.method": method,
        "url.scheme": scope.get("scheme", "http"),
        "url.path": scope["path"][:2000],
        "network.protocol.version": scope.get("http_version", ""),
        "sglang.request_id": scope.get("state", {}).get("request_id", ""),
    }
    if scope.get("client"):
        attributes["client.address"] = str(scope["client"][0])
    if scope.get("server"):
        attributes["server.address"], attributes["server.port"] = scope["server"][0], scope["server"][1] or 0
    return attributes
