"""OpenAI's HTTP API for images and videos, the models behind it, and the OpenAPI document of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .groups import DocumentGroup, ImageGroup, LoraGroup, ModelGroup, VideoGroup

if TYPE_CHECKING:
    from sglang_core import RouteGroup


@hookimpl
def sglang_register_routes() -> Sequence[RouteGroup]:
    """Add the five groups."""
    return [ImageGroup(), VideoGroup(), ModelGroup(), LoraGroup(), DocumentGroup()]
