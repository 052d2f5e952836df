"""The launcher ``spawn``: each rank a child process of the server, in a session of its own."""

import os
from typing import TYPE_CHECKING

from sglang_core import Availability

if TYPE_CHECKING:
    from sglang_core import RankCommand, Ranks


class SpawnLauncher:
    """Starts ranks on this machine. Ctrl-C in the server's terminal does not reach them."""

    name = "spawn"
    order = 10

    def probe(self) -> Availability:
        """Say that it works on every POSIX system: the channel is a descriptor that a child inherits."""
        if os.name == "posix":
            return Availability.yes()
        return Availability.no(f"it needs a POSIX system, not {os.name}", "run the server on Linux or macOS, or in WSL")

    def launch(self, command: "RankCommand") -> "Ranks":
        """Start all ranks; returns at once.

        :raises UnavailableError: if a process cannot be started; none is left then.
        """
        from .processes import spawn_ranks  # subprocess: only where ranks are started

        return spawn_ranks(command)
