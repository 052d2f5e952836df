"""Child processes as ranks: started with their place in the environment, ended with everything they have started."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from sglang_core import RankCommand, UnavailableError

from .memory_kills import count_memory_kills

_MASTER_ADDRESS = "127.0.0.1"
_POLL_S = 0.01


def spawn_ranks(command: RankCommand) -> "SpawnedRanks":
    """Start the ranks of a command.

    :raises UnavailableError: if one cannot be started; none is left then.
    """
    shared = {
        "WORLD_SIZE": str(command.world_size),
        "MASTER_ADDR": _MASTER_ADDRESS,
        "MASTER_PORT": str(_free_port()),
    }
    memory_kills = count_memory_kills()
    processes: list[subprocess.Popen[bytes]] = []
    for rank in range(command.world_size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        try:
            process = subprocess.Popen(
                list(command.argv),
                stdin=subprocess.DEVNULL,
                pass_fds=(command.channel,) if rank == 0 else (),
                start_new_session=True,
                env={**os.environ, **command.environment, **shared, **place},
            )
        except OSError as error:
            SpawnedRanks(processes, memory_kills).kill(0.0)
            raise UnavailableError(
                f"launcher spawn: {command.argv[0]} cannot be started: {error.strerror or error}",
                "see that this system lets the server start more processes (ulimit -u), and that there is memory left",
            ) from error
        processes.append(process)
    return SpawnedRanks(processes, memory_kills)


class SpawnedRanks:
    """Processes that were spawned. Each leads a process group of its own.

    They are waited for only once they are killed: until then a process that has ended keeps its id, so that no other
    process can be met in its place.

    :param memory_kills: what :func:`count_memory_kills` said before they were started.
    """

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"], memory_kills: int | None) -> None:
        self.pids = tuple(process.pid for process in processes)
        self._processes = tuple(processes)
        self._memory_kills = memory_kills
        self._became: str | None = None
        self._is_over = False

    def poll(self) -> str | None:
        """Return ``None`` while all run, else what became of the first that ended."""
        if self._became is None and not self._is_over:
            for rank, process in enumerate(self._processes):
                code = _exit_code(process)
                if code is not None:
                    self._became = self._describe(rank, code)
                    break
        return self._became

    def kill(self, grace_s: float) -> None:
        """End all with everything they have started: SIGTERM if there is any grace, SIGKILL after it."""
        self.poll()  # what they died of by themselves is remembered
        if self._is_over:
            return
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while time.monotonic() < deadline and any(_exit_code(process) is None for process in self._processes):
                time.sleep(_POLL_S)
        self._signal(signal.SIGKILL)
        self._is_over = True
        for process in self._processes:
            process.wait()
        if self._became is None:
            self._became = "it was stopped"

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError, PermissionError):  # a group whose last process is a zombie, on macOS
                os.killpg(process.pid, number)

    def _describe(self, rank: int, code: int) -> str:
        if code >= 0:
            return f"rank {rank} ended with exit code {code}"
        name = _signal_name(-code)
        if -code == signal.SIGKILL and self._was_memory_short():
            return f"rank {rank} was killed by the system, which was out of memory ({name})"
        return f"rank {rank} was ended by {name}"

    def _was_memory_short(self) -> bool:
        now = count_memory_kills()
        return now is not None and self._memory_kills is not None and now > self._memory_kills


def _exit_code(process: "subprocess.Popen[bytes]") -> int | None:
    """Return the exit code, negative for a signal, or ``None``; where the system can, without reaping the process."""
    if process.returncode is not None or not hasattr(os, "waitid"):
        return process.poll()
    try:
        state = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # reaped by somebody else
        return process.poll()
    if state is None:
        return None
    return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_MASTER_ADDRESS, 0))
        port: int = probe.getsockname()[1]
    return port
