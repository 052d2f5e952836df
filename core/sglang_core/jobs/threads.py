"""Blocking calls that may take long, in threads that do not hold up the end of the process."""

import asyncio
import contextlib
import queue
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


class SerialThread:
    """Runs blocking functions one after the other in a thread of its own, in the order in which it is asked.

    What an executor of one thread does, in half the time that handing over and back takes there: a job's record is
    changed thrice.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        """Have a function called; what it returns or raises is that of the future. Cancelling that stops nothing."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(partial(_work, function, loop, done))
        return done

    def close(self) -> None:
        """Let the thread end when it has done what was asked until now."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _work(function: Callable[[], T], loop: asyncio.AbstractEventLoop, done: "asyncio.Future[T]") -> None:
    try:
        settle = partial(done.set_result, function())
    except BaseException as error:  # for the caller
        settle = partial(done.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(lambda: None if done.done() else settle())
