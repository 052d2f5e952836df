"""Which waiting request runs next. Pure and deterministic: no clock, no threads; times are passed in.

Two rules, one inside the other. *Between owners* (API keys) the seconds of work are shared fairly, by weights: the
owner that has been served least goes first (start-time fair queueing, Goyal, Vin and Cheng, 1996). *Of one owner* the
request goes first whose patience ends first: a request is patient for a multiple of the time it will take, up to a
limit. So small goes before large, but only before what came shortly ahead of it: nothing is overtaken by what comes
later than its patience allows. Priorities are a head start in seconds, in both rules.

What is asked for while a work runs, for its middle (:mod:`~.interleaving`), is the first in this order for which there
is room there: it takes nothing from those before it, which can not run yet.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from math import ceil, isfinite

from attrs import define, field, frozen, validators

from ..errors import SglangError

#: Before anything was measured; only the proportion of requests to each other depends on it.
_FIRST_SECONDS_PER_UNIT = 1e-7
#: Weight of the newest measurement.
_LEARNING = 0.25
_MAX_RETRY_AFTER_S = 600


class QueueFullError(SglangError):
    """No more requests may wait now. ``retry_after_s`` is when it may be worth to ask again."""

    def __init__(self, problem: str, remedy: str, retry_after_s: int = 1) -> None:
        super().__init__(problem, remedy)
        self.retry_after_s = retry_after_s


def _is_finite(instance: object, attribute: object, value: float) -> None:
    if not isfinite(value):
        raise ValueError(f"{value} is no finite number")


@frozen(kw_only=True)
class QueueEntry:
    """A request that waits. ``cost`` is its size (:func:`~.batching.plan_cost`), in units of any kind.

    Entries of equal ``batch_key`` may run together. ``created_at`` is on the same clock as every ``now``; a request
    that comes back after its run was lost keeps it, and with it its place.
    """

    id: str
    owner: str | None = None
    #: Larger comes first.
    priority: int = 0
    cost: float = field(default=1.0, validator=[validators.ge(0), _is_finite])
    batch_key: Hashable | None = None
    #: Whether it is to run neither in the middle of another nor with one in its own: see :mod:`~.interleaving`.
    runs_alone: bool = False
    #: The state of the pipeline that it needs (:func:`~.batching.followed_settings`); it interrupts none in another.
    state_key: Hashable | None = None
    created_at: float = field(default=0.0, validator=_is_finite)


#: How many entries like this one, run together, may run now.
Room = Callable[[QueueEntry], int]


@frozen(kw_only=True, order=True)
class _Claim:
    """An owner's claim to be next, with the entry that would be."""

    rank: tuple[float, float, str]
    served_s: float = field(order=False)
    entry: "QueueEntry" = field(order=False)


@define
class _Share:
    """What one owner has had: the seconds of service, by weight, at which its next request may begin."""

    served_s: float = 0.0


@frozen(kw_only=True)
class _Running:
    entry: QueueEntry
    started_at: float


class RequestScheduler:
    """The queue of a server.

    :param max_queue: most entries that wait.
    :param max_queue_per_owner: most entries of one owner that wait.
    :param weights: shares of the owners in proportion to each other; 1 for those not named.
    :param patience: for how many times its own duration a request lets smaller ones go first.
    :param max_patience_s: the longest it does so.
    :param priority_s: the head start that one step of priority gives.
    """

    def __init__(
        self,
        max_queue: int,
        *,
        max_queue_per_owner: int | None = None,
        weights: Mapping[str | None, float] | None = None,
        patience: float = 3.0,
        max_patience_s: float = 300.0,
        priority_s: float = 60.0,
    ) -> None:
        self._max_queue = max_queue
        self._max_queue_per_owner = max_queue_per_owner
        self._weights = dict(weights or {})
        self._patience = patience
        self._max_patience_s = max_patience_s
        self._priority_s = priority_s
        self._waiting: dict[str, QueueEntry] = {}
        self._running: dict[str, _Running] = {}
        self._shares: dict[str | None, _Share] = {}
        #: How far the service has come, in the shares' seconds: the share at which the last entry began.
        self._virtual_s = 0.0
        #: Sums of what was measured, in seconds and units, older runs counting less.
        self._measured_s = self._measured_units = 0.0
        #: The order in which the entries would go; ``None`` when it has to be found anew.
        self._order: list[str] | None = None
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many entries wait."""
        return len(self._waiting)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._waiting

    @property
    def num_running(self) -> int:
        """Return how many entries were popped and have not finished."""
        return len(self._running)

    def add(self, entry: QueueEntry, now: float | None = None) -> None:
        """Let an entry wait.

        :param now: makes ``retry_after_s`` exact.
        :raises QueueFullError: if no more may wait.
        :raises ValueError: if one of that id waits or runs already.
        """
        if entry.id in self._waiting or entry.id in self._running:
            raise ValueError(f"{entry.id} is queued already")
        now = entry.created_at if now is None else now
        if len(self._waiting) >= self._max_queue:
            problem = f"{len(self._waiting)} requests are waiting, and no more are taken"
            raise QueueFullError(problem, "ask again later", self.retry_after_s(now))
        own = sum(other.owner == entry.owner for other in self._waiting.values())
        if self._max_queue_per_owner is not None and own >= self._max_queue_per_owner:
            problem = f"{own} requests of this API key are waiting, and no more of it are taken"
            raise QueueFullError(problem, "wait for one of them, or cancel one", self.retry_after_s(now))
        share = self._shares.setdefault(entry.owner, _Share())
        if not own:  # who comes back has no claim on the time in which it asked for nothing
            share.served_s = max(share.served_s, self._virtual_s)
        self._waiting[entry.id] = entry
        self._order = None

    def pop(self, now: float, max_batch: int = 1, room: Room | None = None) -> list[QueueEntry]:
        """Take the next entry, and those that may run together with it, up to ``max_batch``; none if nobody waits.

        :param room: for which entries there is room now, where that is not all. Others are passed over, but not by
            what has a lower priority.
        """
        first = self._first(room)
        if first is None:
            return []
        batch = [first]
        if first.batch_key is not None:
            most = max_batch if room is None else min(max_batch, room(first))
            batch += self._company(first, room)[: max(0, most - 1)]
        if first.id == self._ordered()[0]:  # else somebody who was served less waits yet
            self._virtual_s = max(self._virtual_s, self._shares[first.owner].served_s)
        for entry in batch:
            del self._waiting[entry.id]
            self._running[entry.id] = _Running(entry=entry, started_at=now)
            self._shares[entry.owner].served_s += self._charge_s(entry)
        self._forget_idle_shares()
        self._order = None
        return batch

    def hold_s(self, now: float, max_batch: int, delay_s: float, room: Room | None = None) -> float:
        """Return for how long the next entry should wait for others to run with; 0: pop now."""
        first = self._first(room)
        if first is None or first.batch_key is None or max_batch < 2 or delay_s <= 0:
            return 0.0
        company = sum(entry.batch_key == first.batch_key for entry in self._waiting.values())
        return 0.0 if company >= max_batch else max(0.0, first.created_at + delay_s - now)

    def _first(self, room: Room | None = None) -> QueueEntry | None:
        """Return the first entry for which there is room."""
        passed_over: int | None = None
        for entry in map(self._waiting.__getitem__, self._ordered()):
            if passed_over is not None and entry.priority < passed_over:
                continue
            if room is None or room(entry) > 0:
                return entry
            passed_over = entry.priority if passed_over is None else max(passed_over, entry.priority)
        return None

    def _company(self, first: QueueEntry, room: Room | None) -> list[QueueEntry]:
        """Return what may run together with an entry, in order."""
        others = (self._waiting[entry_id] for entry_id in self._ordered() if entry_id != first.id)
        return [other for other in others if other.batch_key == first.batch_key and (room is None or room(other) > 0)]

    def remove(self, entry_id: str) -> QueueEntry | None:
        """Take an entry out that waits; ``None`` if there is none."""
        entry = self._waiting.pop(entry_id, None)
        if entry is not None:
            self._order = None
        return entry

    def finished(self, entry: QueueEntry, seconds: float | None = None) -> None:
        """Note that a popped entry runs no longer.

        :param seconds: how long it ran, for a batch its part of it; ``None`` if it did not come to its end, from which
            nothing is learned.
        """
        self._running.pop(entry.id, None)
        if seconds is None or seconds < 0 or entry.cost <= 0:
            return
        self._measured_s = (1 - _LEARNING) * self._measured_s + _LEARNING * seconds
        self._measured_units = (1 - _LEARNING) * self._measured_units + _LEARNING * entry.cost
        self._order = None

    def position(self, entry_id: str) -> int | None:
        """Return how many entries go before this one if none is added, ``None`` if it does not wait."""
        self._ordered()
        return self._places.get(entry_id)

    def wait_s(self, entry_id: str, now: float, room: Room | None = None) -> float | None:
        """Return about how long an entry will wait yet, ``None`` if it does not wait.

        :param room: which entries may run in the middle of what runs: they wait for each other, and for as long again.
        """
        place = self.position(entry_id)
        if place is None:
            return None
        before = [self._waiting[other] for other in self._ordered()[:place]]
        if room is not None and room(self._waiting[entry_id]) > 0:
            return 2 * sum(self.expected_s(entry.cost) for entry in before if room(entry) > 0)
        return self._running_s(now) + sum(self.expected_s(entry.cost) for entry in before)

    def retry_after_s(self, now: float) -> int:
        """Return in how many whole seconds a place in a full queue may be free."""
        order = self._ordered()
        next_s = self.expected_s(self._waiting[order[0]].cost) if order else 0.0
        return max(1, min(_MAX_RETRY_AFTER_S, ceil(self._running_s(now) or next_s)))

    def expected_s(self, cost: float) -> float:
        """Return how long a run of this cost is expected to take, from what was measured so far."""
        per_unit = self._measured_s / self._measured_units if self._measured_units else _FIRST_SECONDS_PER_UNIT
        return cost * per_unit

    def _running_s(self, now: float) -> float:
        """Return about how long it takes until nothing runs."""
        left = [self.expected_s(run.entry.cost) - (now - run.started_at) for run in self._running.values()]
        return max(0.0, sum(max(0.0, seconds) for seconds in left))

    def _charge_s(self, entry: QueueEntry) -> float:
        return self.expected_s(entry.cost) / self._weights.get(entry.owner, 1.0)

    def _forget_idle_shares(self) -> None:
        """Drop the shares of owners who ask for nothing and have caught up: there may be many owners in time."""
        active = {entry.owner for entry in self._waiting.values()}
        self._shares = {
            owner: share for owner, share in self._shares.items() if owner in active or share.served_s > self._virtual_s
        }

    def _patience_ends_at(self, entry: QueueEntry) -> float:
        patient_s = min(self._patience * self.expected_s(entry.cost), self._max_patience_s)
        return entry.created_at + patient_s - self._priority_s * entry.priority

    def _ordered(self) -> list[str]:
        """Return the ids in the order in which :meth:`pop` with batches of one would give them."""
        if self._order is None:
            self._order = [entry.id for entry in self._simulated()]
            self._places = {entry_id: place for place, entry_id in enumerate(self._order)}
        return self._order

    def _simulated(self) -> Iterator[QueueEntry]:
        """Yield the entries as they would be popped; of each owner the one whose patience ends first is its next."""
        lines: dict[str | None, list[QueueEntry]] = {}
        for entry in sorted(self._waiting.values(), key=self._rank, reverse=True):
            lines.setdefault(entry.owner, []).append(entry)
        claims = [self._claim(self._shares[owner].served_s, line[-1]) for owner, line in lines.items()]
        heapify(claims)
        while claims:
            claim = heappop(claims)
            line = lines[claim.entry.owner]
            yield line.pop()
            if line:
                heappush(claims, self._claim(claim.served_s + self._charge_s(claim.entry), line[-1]))

    def _claim(self, served_s: float, entry: QueueEntry) -> "_Claim":
        rank = (served_s - self._priority_s * entry.priority, *self._rank(entry))
        return _Claim(rank=rank, served_s=served_s, entry=entry)

    def _rank(self, entry: QueueEntry) -> tuple[float, str]:
        return (self._patience_ends_at(entry), entry.id)
