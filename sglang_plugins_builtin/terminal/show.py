"""``--show``: draws a result in the terminal."""

import logging
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from sglang_core import OutputError

from .preview import preview_escape
from .protocols import ask_sixel, detect_protocol

logger = logging.getLogger(__name__)

_FALLBACK_SIZE = (800, 600)
_CAPABLE = "kitty, Ghostty, Konsole, iTerm2, WezTerm, mintty, foot, mlterm, or another one with sixel graphics"


def show_preview(path: str, streams: Sequence[TextIO]) -> None:
    """Draw the file on the first of ``streams`` that is a terminal; what prevents it is a warning."""
    stream = next((stream for stream in streams if stream.isatty()), None)
    if stream is None:
        logger.warning("--show has no effect: the output is not a terminal")
        return
    output_fd = stream.fileno()
    protocol = detect_protocol(os.environ, lambda: ask_sixel(_input_fd(), output_fd))
    if protocol is None:
        logger.warning("--show has no effect: this terminal shows no pictures; use %s", _CAPABLE)
        return
    try:
        escape = preview_escape(Path(path), protocol, _drawing_size(output_fd))
    except OutputError as error:
        logger.warning("%s", error)
        return
    stream.flush()
    stream.buffer.write(escape + b"\n")
    stream.buffer.flush()


def _input_fd() -> int:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something that is no file
        return -1


def _drawing_size(fd: int) -> tuple[int, int]:
    """Return the size of the terminal's window in pixels, less a few rows for text."""
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
    except (ImportError, OSError):
        return _FALLBACK_SIZE
    rows, _, width, height = struct.unpack("HHHH", answer)
    if not (rows and width and height):
        return _FALLBACK_SIZE
    return width, max(1, height * max(1, rows - 4) // rows)
