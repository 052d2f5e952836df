"""Blocking calls that may take long, in threads that do not hold up the end of the process."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Runs blocking functions, at most ``at_once`` at a time.

    The threads of an executor are waited for when the process ends, for as long as a storage that is away is asked
    again and again; these are not.
    """

    def __init__(self, at_once: int, name: str) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._name = name

    async def run(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns, or raise what it raises. A caller that is cancelled leaves it running."""
        async with self._slots:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()
            threading.Thread(target=_work, args=(function, loop, done), name=self._name, daemon=True).start()
            return await done


def _work(function: Callable[[], T], loop: asyncio.AbstractEventLoop, done: "asyncio.Future[T]") -> None:
    try:
        settle = partial(done.set_result, function())
    except BaseException as error:  # for the caller
        settle = partial(done.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(lambda: None if done.done() else settle())
