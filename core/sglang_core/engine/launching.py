"""What a launcher is to the host: how the processes that hold a model come to life."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from ..errors import UnavailableError
from ..options.engine import EngineOptions
from ..registry import Availability, unknown_name

if TYPE_CHECKING:
    from ..options import Settings
    from ..plugins import PluginManager


@frozen(kw_only=True)
class RankCommand:
    """How to start the ranks of one model: the same command for each, told apart by the environment.

    The launcher adds ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``. Rank 0 inherits
    the file descriptor ``channel`` (a connected Unix socket), over which the server talks to it.
    """

    argv: Sequence[str]
    world_size: int = 1
    environment: Mapping[str, str] = field(factory=dict)
    channel: int


class Ranks(Protocol):
    """The processes of one launched model."""

    @property
    def pids(self) -> Sequence[int]:
        """Process ids by rank."""

    def poll(self) -> str | None:
        """Return ``None`` while all run, else what became of the first that ended: exit code or signal, no full stop.

        Where the system has killed it for lack of memory, "out of memory" is among the words.
        """

    def kill(self, grace_s: float) -> None:
        """End all: ask politely, and after ``grace_s`` seconds no more. Returns when none is left; never raises."""


class Launcher(Protocol):
    """A way to start ranks."""

    @property
    def name(self) -> str:
        """The name it is known by; unique among its kind."""

    @property
    def order(self) -> int:
        """Without a choice of the user the first, in ascending order, that is available is taken."""

    def probe(self) -> Availability:
        """Say whether this launcher can work here, without importing anything heavy."""

    def launch(self, command: RankCommand) -> Ranks:
        """Start all ranks; returns at once.

        :raises UnavailableError: if a process cannot be started; none is left then.
        """


def choose_launcher(manager: "PluginManager", settings: "Settings") -> Launcher:
    """Return the launcher that ``--launcher`` names, else the first that is available.

    :raises UnavailableError: if there is none, or it cannot work here.
    """
    name = settings.of(EngineOptions).launcher
    label = settings.origin("launcher").label
    if name is not None and name not in manager.launchers:
        problem, remedy = unknown_name("launcher", name, [launcher.name for launcher in manager.launchers])
        raise UnavailableError(f"{label}: {problem}", remedy)
    refusals, remedies = [], []
    known = sorted(manager.launchers, key=lambda launcher: launcher.order)
    for launcher in [manager.launchers.get(name)] if name is not None else known:
        answer = launcher.probe()
        if answer.is_available:
            return launcher
        refusals.append(f"{launcher.name}: {answer.reason}")
        remedies.append(answer.remedy)
    reasons = "; ".join(refusals) or "no launcher is installed"
    raise UnavailableError(
        f"the model's process cannot be started: {reasons}", "; or ".join(remedies) or "sglang doctor"
    )
