"""A work between the server and the ranks, as the supervisor keeps it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..options.convert import to_plain
from .rank_life import Ending, RankLife
from .work import ItemEvent, ItemResult, Work, WorkItem

logger = logging.getLogger(__name__)

_NUMBERS = count(1)


class WorkRun:
    """A work on its way: what is known of its items so far.

    :param is_interjected: whether it is to run in the middle of another.
    """

    def __init__(self, work: Work, on_event: Callable[[ItemEvent], None], *, is_interjected: bool = False) -> None:
        self.number = next(_NUMBERS)
        self.is_interjected = is_interjected
        self.items = {item.id: item for item in work.items}
        self.results: dict[str, ItemResult] = {}
        self.seen: set[str] = set()
        self.cancelled: set[str] = set()
        self.life: RankLife | None = None
        #: Whether the ranks have said that they run it.
        self.has_begun = False
        self.is_over = asyncio.Event()
        self._on_event = on_event

    def tell(self, event: ItemEvent) -> None:
        """Pass an event on to whom it concerns."""
        self.seen.add(event.id)
        if event.id not in self.items or event.id in self.results:
            return
        try:
            self._on_event(event)
        except Exception:  # the caller's code; the ranks' other messages must go on
            logger.warning("a listener failed on an event of %s", event.id, exc_info=True)

    @property
    def is_all_cancelled(self) -> bool:
        """Say whether nobody wants it any more."""
        return self.cancelled.issuperset(self.items)

    def is_on(self, life: RankLife) -> bool:
        """Say whether the ranks of this life have it and it is not over."""
        return self.life is life and not self.is_over.is_set()

    def to_message(self, items: Sequence[WorkItem], folder: Path) -> dict[str, Any]:
        """Return what the ranks are told of it."""
        return {
            "work": self.number,
            "items": [{"id": item.id, "settings": to_plain(item.settings)} for item in items],
            "folder": str(folder),
            "is_interjected": self.is_interjected,
        }

    def drop_cancelled(self) -> tuple[WorkItem, ...]:
        """Settle what was cancelled before it was sent; return what is left to run."""
        for item_id in self.cancelled & set(self.items):
            self.results.setdefault(item_id, ItemResult(id=item_id, is_cancelled=True, has_begun=False))
        return tuple(item for item in self.items.values() if item.id not in self.results)

    def lose(self, ending: Ending) -> None:
        """Give up what has not ended: the first of it ran, others only if they were heard of.

        What was to run in the middle of another may have waited for that yet.
        """
        open_ids = [item_id for item_id in self.items if item_id not in self.results]
        for position, item_id in enumerate(open_ids):
            is_first = position == 0 and (self.has_begun or not self.is_interjected)
            has_begun = self.life is not None and (is_first or item_id in self.seen)
            is_cancelled = item_id in self.cancelled
            self.results[item_id] = ItemResult(
                id=item_id,
                error=None if is_cancelled else ending.to_job_error(),
                is_cancelled=is_cancelled,
                is_lost=not is_cancelled,
                has_begun=has_begun,
            )
        self.is_over.set()
