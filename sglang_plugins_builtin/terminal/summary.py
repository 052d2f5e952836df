"""The line that says what became of an output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .amounts import amount_text, seconds_text

if TYPE_CHECKING:
    from sglang_core import OutputSaved


def output_line(event: OutputSaved, elapsed_s: float, is_styled: bool = False) -> str:
    """Return path, size, seed, seconds and speed of a saved output; what its details lack is left out.

    :param elapsed_s: seconds to use where the details name none.
    :param is_styled: whether escape sequences may set off the path.
    """
    details = event.details
    seconds = _number(details, "seconds") or elapsed_s
    parts = [f"\x1b[1m{event.path}\x1b[0m" if is_styled else event.path]
    width, height = _number(details, "width"), _number(details, "height")
    num_frames = _number(details, "num_frames") or 1
    if width and height:
        parts.append(f"{width:.0f}x{height:.0f}")
    is_clip = details.get("kind") == "video" or num_frames > 1
    if is_clip:
        parts.append(amount_text("frame", int(num_frames)))
    if details.get("seed") is not None:
        parts.append(f"seed {details['seed']}")
    parts.append(seconds_text(seconds))
    if is_clip and seconds > 0:
        parts.append(f"{_significant(num_frames / seconds)} frames/s")
    elif width and height and seconds > 0:
        parts.append(f"{_significant(width * height / 1e6 / seconds)} MP/s")
    return "  ".join(parts)


def run_line(num_saved: int, duration_s: float) -> str | None:
    """Return the line about a completed run, or ``None`` when the line of its one output says it all."""
    if num_saved == 1:
        return None
    return f"{num_saved or 'no'} outputs saved in {seconds_text(duration_s)}"


def may_style(is_terminal: bool) -> bool:
    """Say whether text on a stream may be styled: a terminal, not a dumb one, and NO_COLOR is not set."""
    return is_terminal and not os.environ.get("NO_COLOR") and can_move_cursor()


def can_move_cursor() -> bool:
    """Say whether the environment describes a terminal that reads escape sequences."""
    return os.environ.get("TERM") not in (None, "", "dumb", "unknown")


def _number(details: Mapping[str, Any], name: str) -> float | None:
    value = details.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _significant(value: float) -> str:
    """Return three digits that matter, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
