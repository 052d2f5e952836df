"""The event loop of a server: that of uvloop where it is installed, which takes less of the processor, or Python's."""

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop."""
    try:
        import uvloop  # optional, and not made for every system
    except ImportError:
        logger.debug("the event loop is Python's: uvloop is not installed")
        return asyncio.new_event_loop
    return uvloop.new_event_loop
