"""``--enable-metrics``: numbers for Prometheus at ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import OptionGroup, hookimpl

from .config import MetricsOptions
from .routes import MetricsRoutes

if TYPE_CHECKING:
    from sglang_core import RouteGroup


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add the switch."""
    return [
        OptionGroup(name="metrics", settings=MetricsOptions, commands=("serve",), ignored_by=("generate", "explain"))
    ]


@hookimpl
def sglang_register_routes() -> list[RouteGroup]:
    """Add ``/metrics``."""
    return [MetricsRoutes()]
