"""When a small request may run in the middle of a large one. Pure and deterministic: times are passed in."""

from collections.abc import Hashable, Sequence

from .request_scheduler import QueueEntry

#: A work may take this share of what the one that runs has yet to do: then that ends hardly later.
_SHARE = 0.25


class Interleaving:
    """The work that runs, and what may be run in its middle: what is small next to the rest of it.

    After every interruption the work that runs has as much time for itself as the interruption took. So it has at
    least half of the time, however many small ones wait.

    :param share: the largest cost of an interruption, as a share of what the work that runs has yet to do.
    """

    def __init__(self, share: float = _SHARE) -> None:
        self._share = share
        #: Of the entries that run together: what each costs, and how much of it is done, from 0 to 1.
        self._costs: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._priority = 0
        self._state_keys: set[Hashable] = set()
        self._runs_alone = False
        self._own_until = 0.0

    def begin(self, entries: Sequence[QueueEntry], now: float) -> None:
        """Note what runs from now on."""
        self._costs = {entry.id: entry.cost for entry in entries}
        self._done = dict.fromkeys(self._costs, 0.0)
        self._priority = max((entry.priority for entry in entries), default=0)
        self._state_keys = {entry.state_key for entry in entries}
        self._runs_alone = any(entry.runs_alone for entry in entries)
        self._own_until = now

    def advance(self, entry_id: str, progress: float) -> None:
        """Note how far an entry is; one that is not among those that run is ignored."""
        if entry_id in self._done:
            self._done[entry_id] = max(self._done[entry_id], min(progress, 1.0))

    def interrupted(self, began: float, ended: float) -> None:
        """Note that another work ran in the middle, from when to when."""
        self._own_until = ended + max(0.0, ended - began)

    def end(self) -> None:
        """Note that nothing runs any more."""
        self._costs, self._done = {}, {}

    def pause_s(self, now: float) -> float:
        """Return for how long the work that runs has the time for itself."""
        return max(0.0, self._own_until - now)

    def room(self, entry: QueueEntry) -> int:
        """Return how many entries like this one, run together, may interrupt what runs; 0 if it may not."""
        if not self._costs or self._runs_alone or self._state_keys != {entry.state_key}:
            return 0
        if entry.runs_alone or entry.priority < self._priority:
            return 0
        left = sum(cost * (1.0 - self._done[entry_id]) for entry_id, cost in self._costs.items())
        return int(self._share * left / entry.cost) if entry.cost > 0 else 0
