"""A web page at ``/`` on which people try the model that a server holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import OptionGroup, hookimpl

from .config import PlaygroundOptions
from .routes import PlaygroundRoutes

if TYPE_CHECKING:
    from sglang_core import RouteGroup


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add the switch."""
    ignored_by = ("generate", "explain")
    return [
        OptionGroup(name="playground", settings=PlaygroundOptions, commands=("serve",), ignored_by=ignored_by),
    ]


@hookimpl
def sglang_register_routes() -> list[RouteGroup]:
    """Add the page, its files, and what it asks for beyond the API."""
    return [PlaygroundRoutes()]
