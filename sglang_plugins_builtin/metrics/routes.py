"""``/metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .config import MetricsOptions

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import OpenApiPaths, Server


class MetricsRoutes:
    """The route, where ``--enable-metrics`` asks for it."""

    name = "metrics"
    order = 20

    def routes(self, server: Server) -> Sequence[BaseRoute]:
        """Return the route, and begin to count.

        :raises UnavailableError: if the package that counts is not installed.
        """
        if not server.settings.of(MetricsOptions).enable_metrics:
            return []
        from starlette.responses import Response
        from starlette.routing import Route

        from sglang_core import UnavailableError, requires

        try:
            from .counting import ServerMetrics
        except ModuleNotFoundError as error:
            raise UnavailableError(
                "--enable-metrics: the package prometheus_client is not installed",
                "pip install prometheus_client, or leave --enable-metrics out",
            ) from error
        metrics = ServerMetrics(server)

        @requires("key")
        async def show(request: Request) -> Response:
            content, content_type = metrics.exposition(request.headers.get("accept", ""))
            return Response(content, headers={"Content-Type": content_type})

        return [Route("/metrics", show)]

    def describe(self, server: Server) -> OpenApiPaths:
        """Describe ``/metrics``, if it is there."""
        if not server.settings.of(MetricsOptions).enable_metrics:
            return {}
        answer = {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
        operation = {"operationId": "get_metrics", "summary": "Numbers for Prometheus.", "responses": {"200": answer}}
        return {"/metrics": {"get": operation}}
