"""The routes of the OpenAPI document and of its page; open to all, they tell nothing about jobs."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglang_core import requires

from .docs_page import POLICY, docs_page
from .document import server_document

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import Server


def document_routes(server: "Server") -> "Sequence[BaseRoute]":
    """Return the two routes."""
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Route

    # Made when first asked for: by then every plugin has its routes.
    document = functools.cache(lambda: server_document(server))

    @requires("open")
    async def show_document(request: "Request") -> "Response":
        return JSONResponse(document())

    @requires("open")
    async def show_page(request: "Request") -> "Response":
        return HTMLResponse(docs_page(document()), headers={"Content-Security-Policy": POLICY})

    return [Route("/openapi.json", show_document, methods=["GET"]), Route("/docs", show_page, methods=["GET"])]
