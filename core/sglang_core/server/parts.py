"""What routes and middleware are to the host."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.routing import BaseRoute

    from .context import Server

#: Name of an OpenAPI path item by its path, as the OpenAPI 3.1 specification has it.
OpenApiPaths = Mapping[str, Mapping[str, Any]]


class RouteGroup(Protocol):
    """Routes of one feature, built once for each server."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def order(self) -> int:
        """Its place among its kind: lower comes first, and the first route that matches serves a request."""

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return Starlette routes; their endpoints may keep ``server``."""

    def describe(self, server: "Server") -> OpenApiPaths:
        """Return what the OpenAPI document says about these routes, by path; possibly nothing."""


class MiddlewareLayer(Protocol):
    """One layer around every request."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def order(self) -> int:
        """Its place among its kind: lower is further outside."""

    def middleware(self, server: "Server") -> "Middleware | None":
        """Return the ASGI middleware for this server, ``None`` if its settings do not ask for it."""
