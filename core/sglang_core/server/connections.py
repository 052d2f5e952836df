"""Connections that end when their client has gone."""

import hypercorn.asyncio.run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated


class Connection(TCPServer):
    """A connection as Hypercorn has it, without the wait for a next request of a client that has hung up.

    Hypercorn 0.18 leaves such a connection open until its keep-alive time is over: clients that connect anew for each
    request would use up the files that a process may open.
    """

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Pass on what the protocol sends, but begin no wait when nothing can come."""
        if not (isinstance(event, Updated) and event.idle and self.reader.at_eof()):
            await super().protocol_send(event)


def use_connections() -> None:
    """Let Hypercorn make its connections of this kind; it has no setting for it."""
    hypercorn.asyncio.run.TCPServer = Connection  # type: ignore[attr-defined]  # it imports the name for itself
