"""Ctrl-C and SIGTERM while a run goes on."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.control import StepControl

logger = logging.getLogger(__name__)


@contextmanager
def cancel_on_signals(control: StepControl) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a cancelled run.

    While steps are being made the first signal stops the run at the next boundary, so that pipelines are left whole; a
    second one, or one at any other time, stops it at once. Use it in the main thread only.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        was_cancelled = control.is_cancelled
        control.cancel()
        if was_cancelled or not control.has_steps:
            raise KeyboardInterrupt  # no Exception: code that catches those must not go on
        _say("stopping after this step; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """Log a warning from a signal handler; past the stream where the signal came in the middle of a write to it."""
    try:
        logger.warning("%s", text)
    except RuntimeError:  # reentrant call
        os.write(sys.stderr.fileno(), f"WARNING: {text}\n".encode())
