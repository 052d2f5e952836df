"""One life of the ranks, from launch to end: their processes and the channel to them."""

import asyncio
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from attrs import frozen

from ..errors import SglangError, UnavailableError
from ..foreign_code import translated
from ..jobs.records import JobError
from .channel import ChannelError, Message, MessageBuffer
from .launching import Launcher, RankCommand, Ranks

_EXIT_WAIT_S = 2.0
_POLL_S = 0.01
_CHUNK_BYTES = 256 * 1024


@frozen(kw_only=True)
class Ending:
    """Why a life ended. ``code`` is that of a :class:`~sglang_core.JobError`."""

    code: str
    reason: str
    remedy: str

    def to_job_error(self) -> JobError:
        """Return what the client of a lost request is told."""
        return JobError(code=self.code, message=self.reason, remedy=self.remedy)


class RankLife:
    """Launched ranks and the server's end of their channel. Made by :meth:`begin`, in the thread of the event loop.

    ``is_ready`` and ``has_worked`` are kept by the supervisor, as are ``failure`` (what the ranks said of loading) and
    ``verdict`` (why they were killed).
    """

    def __init__(self, ranks: Ranks, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ranks = ranks
        self.failure: SglangError | None = None
        self.verdict: Ending | None = None
        self.is_ready = False
        self.has_worked = False
        self._reader = reader
        self._writer = writer
        self._received = MessageBuffer()
        self._began_s = self._heard_s = time.monotonic()

    @classmethod
    async def begin(cls, launcher: Launcher) -> "RankLife":
        """Start the ranks.

        Not in a worker thread: Linux ends them with the thread that has started them.

        :raises UnavailableError: if they cannot be started.
        """
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-P", "-m", "sglang_core.engine.rank_process", str(theirs.fileno())]
        remedy = "choose another --launcher"
        try:
            with translated(f"launcher {launcher.name}", UnavailableError, remedy):
                ranks = launcher.launch(RankCommand(argv=argv, channel=theirs.fileno()))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(ranks, reader, writer)

    @property
    def age_s(self) -> float:
        """Return the seconds since the launch."""
        return time.monotonic() - self._began_s

    @property
    def quiet_s(self) -> float:
        """Return the seconds since the ranks were last heard of, or asked for something."""
        return time.monotonic() - self._heard_s

    def send(self, kind: str, values: Mapping[str, Any] | None = None) -> None:
        """Send a message; if the ranks are gone, :meth:`receive` will tell."""
        self._heard_s = time.monotonic()
        with suppress(ConnectionError, RuntimeError):  # uvloop's word for a channel that is closed
            self._writer.write(Message(kind=kind, values=values or {}).encode())

    async def receive(self) -> Message | None:
        """Wait for a message; ``None`` when the channel is closed or broken."""
        try:
            while (message := self._received.take()) is None:
                chunk = await self._reader.read(_CHUNK_BYTES)
                if not chunk:  # in the middle of a message too
                    return None
                self._received.add(chunk)
                self._heard_s = time.monotonic()
        except ConnectionError:
            return None
        except ChannelError as error:
            self.verdict = _broken(str(error))
            return None
        return message

    async def kill(self, verdict: Ending | None = None) -> None:
        """End the ranks now, for the reason ``verdict``."""
        self.verdict = self.verdict or verdict
        await asyncio.to_thread(self.ranks.kill, 0.0)
        self._writer.transport.abort()

    async def end(self) -> Ending:
        """See that nothing is left of the ranks, and return why they ended."""
        if self.verdict is None:
            deadline = time.monotonic() + _EXIT_WAIT_S  # the channel closes a moment before the process is gone
            while (became := self.ranks.poll()) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_POLL_S)
            self.verdict = _broken("they closed the channel") if became is None else _ended(became)
        await self.kill()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        return self.verdict


def _ended(became: str) -> Ending:
    if "out of memory" in became:
        remedy = "ask for a smaller size or fewer frames, or give the server more memory"
        return Ending(code="out_of_memory", reason=f"the model's process ended: {became}", remedy=remedy)
    return Ending(code="crashed", reason=f"the model's process ended: {became}", remedy="look into the server's log")


def _broken(what: str) -> Ending:
    reason = f"the model's process no longer says what the server understands: {what}"
    return Ending(code="crashed", reason=reason, remedy="look into the server's log")
