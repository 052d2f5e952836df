"""The log of a server: lines for people, or one JSON object a line for programs."""

import logging
from datetime import UTC, datetime
from typing import Any, Literal

from ..log_lines import JsonFormatter


def configure_format(log_format: Literal["text", "json"]) -> None:
    """Give the log of this process its format; times are UTC. The ranks follow it."""
    text = logging.Formatter("%(asctime)s %(levelname)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    text.converter = _utc
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if log_format == "json" else text)


def _utc(seconds: float | None) -> Any:
    return datetime.fromtimestamp(seconds or 0, UTC).timetuple()
