"""The application, assembled: the host's own layers around the routes and layers of plugins."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import PluginError, SglangError
from ..foreign_code import translated
from ..options.server import ServerOptions
from .access_log import AccessListener, AccessLog
from .auth import Authentication, KeyRing, guard_routes
from .body_limit import BodyLimit
from .context import Server
from .errors import (
    ApiError,
    answer_api_error,
    answer_defect,
    answer_disconnect,
    answer_http_exception,
    answer_sglang_error,
)
from .host_check import HostCheck, OriginCheck
from .rates import RateLimits, parse_rate
from .request_ids import HEADER, RequestIds
from .response_headers import SecurityHeaders

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from .front import Front
    from .sockets import Listeners

#: What web pages may read of an answer beside its body.
_EXPOSED_HEADERS = (HEADER, "retry-after", "openai-poll-after-ms", "content-disposition", "location")


def with_host_layers(
    front: "Front",
    options: ServerOptions,
    keys: KeyRing,
    listeners: "Listeners",
    access_listeners: Sequence[AccessListener],
) -> "ASGIApp":
    """Return the whole application around ``front``: what every request goes through, from the outside in.

    The log sees every request; then come the headers of answers, what may be said at all (hosts, bodies, origins),
    and last who says it and how often.
    """
    rate = parse_rate(options.rate_limit) if options.rate_limit is not None else None
    app: ASGIApp = RateLimits(front, rate)
    app = Authentication(app, keys)
    if not keys:
        app = OriginCheck(app, options.cors_origin)
    if options.cors_origin:
        app = _with_cors(app, options.cors_origin)
    app = BodyLimit(app, options.max_body_bytes)
    app = HostCheck(app, trusted_hosts(options, keys, listeners))
    app = SecurityHeaders(app, is_shared=bool(options.cors_origin))
    app = RequestIds(app)
    return AccessLog(app, access_listeners, options.access_log_exclude_prefixes)


def trusted_hosts(options: ServerOptions, keys: KeyRing, listeners: "Listeners") -> tuple[str, ...] | None:
    """Return the host names that requests may name, ``None``: all.

    Without a word of the operator all are good where a key is needed, or where other machines may come: there nobody
    knows the names. A server for this machine alone is not called by any other name.
    """
    if options.trusted_host:
        public = _host_of(options.public_url)
        return (*options.trusted_host, *([public] if public else []))
    is_local = options.uds is None and options.fd is None and not listeners.is_public
    if keys or not is_local:
        return None
    public = _host_of(options.public_url)
    return ("loopback", options.host, *([public] if public else []))


def _host_of(url: str | None) -> str | None:
    return urlsplit(url).hostname if url else None


def _with_cors(app: "ASGIApp", origins: tuple[str, ...]) -> "ASGIApp":
    from starlette.middleware.cors import CORSMiddleware  # most servers are asked by no web page

    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=("*",),
        expose_headers=_EXPOSED_HEADERS,
        max_age=600,
    )


def create_app(server: Server) -> "Starlette":
    """Return the application behind the host's layers: the routes and layers of all plugins.

    :raises PluginError: if a plugin's routes or layers can not be built, or two plugins claim one path.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    manager = server.manager
    routes = _collect_routes(server)
    guard_routes(routes)
    layers = []
    for layer in sorted(manager.middleware, key=lambda layer: layer.order):
        with translated(f"middleware {layer.name!r}", PluginError, _without(manager.middleware.owner(layer.name))):
            built = layer.middleware(server)
        if built is not None:
            layers.append(built)
    app = Starlette(
        routes=routes,
        middleware=layers,
        exception_handlers={
            ApiError: answer_api_error,
            SglangError: answer_sglang_error,
            HTTPException: answer_http_exception,
            ClientDisconnect: answer_disconnect,
            Exception: answer_defect,
        },
    )
    app.router.redirect_slashes = False  # an address with a slash too many is another address
    return app


def _collect_routes(server: Server) -> "list[BaseRoute]":
    manager = server.manager
    collected: list[BaseRoute] = []
    claimed: dict[tuple[str, str], str] = {}
    for group in server.route_groups:
        owner = manager.routes.owner(group.name) if group.name in manager.routes else "the host"
        with translated(f"route group {group.name!r}", PluginError, _without(owner)):
            routes = list(group.routes(server))
        for route in routes:
            for claim in _claims(route):
                if claim in claimed:
                    raise PluginError(
                        f"{claim[1]} {claim[0]} of plugin {owner} is already taken by plugin {claimed[claim]}",
                        _without(owner),
                    )
                claimed[claim] = owner
        collected += routes
    return collected


def _claims(route: "BaseRoute") -> list[tuple[str, str]]:
    path = getattr(route, "path", None)
    methods = getattr(route, "methods", None) or ("any method",)
    return [(path, method) for method in methods if method != "HEAD"] if path is not None else []


def _without(owner: str) -> str:
    return f"start without it: --disable-plugin {owner.split(' ')[0]}"
