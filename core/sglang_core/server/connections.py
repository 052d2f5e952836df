"""Connections that end when their client has gone, and that send the head of an answer together with its body."""

from contextlib import suppress
from typing import Any

import hypercorn.asyncio.run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, RawData, Updated

#: What is larger is sent at once, and waited for.
_MOST_HELD_BYTES = 64 * 2**10


class Connection(TCPServer):
    """A connection as Hypercorn has it, but for two things.

    It does not wait for a next request of a client that has hung up. Hypercorn 0.18 leaves such a connection open until
    its keep-alive time is over: clients that connect anew for each request would use up the files that a process may
    open.

    What is to be sent before the event loop turns to something else is sent together. Hypercorn sends the head of an
    answer by itself: its client would wake up, find half of an answer, and wait again.
    """

    def __init__(self, *args: Any, **names: Any) -> None:
        super().__init__(*args, **names)
        self._held: list[bytes] = []
        #: How many wait until what they send has gone out: nothing may overtake it.
        self._num_sending = 0

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Pass on what the protocol sends, but begin no wait when nothing can come."""
        if isinstance(event, RawData):
            await self._send(event.data)
            return
        self._send_held()  # the answer is complete
        if not (isinstance(event, Updated) and event.idle and self.reader.at_eof()):
            await super().protocol_send(event)

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        num_bytes = len(data) + sum(map(len, self._held))
        is_clear = not self._num_sending and not self.writer.is_closing()
        if is_clear and num_bytes <= _MOST_HELD_BYTES and not self.writer.transport.get_write_buffer_size():
            if not self._held:
                self.loop.call_soon(self._send_held)
            self._held.append(data)
            return
        held, self._held = self._held, []
        self._num_sending += 1
        try:
            await super().protocol_send(RawData(b"".join([*held, data])))
        finally:
            self._num_sending -= 1

    def _send_held(self) -> None:
        held, self._held = self._held, []
        if held:
            with suppress(ConnectionError, RuntimeError):  # the client has gone: who reads is told
                self.writer.write(b"".join(held))

    async def _close(self) -> None:
        self._send_held()
        await super()._close()


def use_connections() -> None:
    """Let Hypercorn make its connections of this kind; it has no setting for it."""
    hypercorn.asyncio.run.TCPServer = Connection  # type: ignore[attr-defined]  # it imports the name for itself
