"""The routes of the page: what everybody may load, and what its scripts ask for with a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .config import PlaygroundOptions

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from sglang_core import OpenApiPaths, Server


class PlaygroundRoutes:
    """The routes, unless ``--no-playground`` says otherwise."""

    name = "playground"
    order = 80

    def routes(self, server: Server) -> Sequence[BaseRoute]:
        """Return the routes."""
        if not server.settings.of(PlaygroundOptions).playground:
            return []
        from .files import file_routes
        from .job_views import JobViews

        return [*file_routes(), *JobViews(server).routes()]

    def describe(self, server: Server) -> OpenApiPaths:
        """Return nothing: these routes belong to the page and change with it."""
        return {}
