"""What happens to jobs, told to everyone who listens, without anyone slowing the others down."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from attrs import frozen

from .records import Job

logger = logging.getLogger(__name__)

T = TypeVar("T")
JobEventKind = Literal["queued", "started", "progress", "preview", "finished"]
#: Of these a listener that lags needs only the latest.
_REPLACEABLE: frozenset[JobEventKind] = frozenset({"queued", "progress", "preview"})


@frozen(kw_only=True)
class JobEvent:
    """What happened to a job, and the job as it is now.

    ``queued`` comes when the job is queued and when its place changes, ``finished`` once and last. ``stage`` is at step
    ``index`` of ``total``.
    """

    kind: JobEventKind
    job: Job
    #: 0: the next to run.
    queue_position: int | None = None
    #: Estimate of the seconds until it runs; ``None`` where nothing is known yet.
    wait_s: float | None = None
    stage: str | None = None
    index: int | None = None
    total: int | None = None
    preview_png: bytes | None = None


JobEventListener = Callable[[JobEvent], None]


class Mailbox:
    """The events of one job for one listener. A listener that lags misses progress, and nothing else."""

    def __init__(self) -> None:
        self._events: list[JobEvent] = []
        self._has_news = asyncio.Event()
        self._is_closed = False

    def put(self, event: JobEvent) -> None:
        """Add an event, in place of an unread one that it makes obsolete."""
        if event.kind in _REPLACEABLE:
            self._events = [unread for unread in self._events if unread.kind != event.kind]
        self._events.append(event)
        self._has_news.set()

    def close(self) -> None:
        """Let the listener end when it has read what is there."""
        self._is_closed = True
        self._has_news.set()

    async def __aiter__(self) -> AsyncIterator[JobEvent]:
        """Yield events until ``finished``, or until the mailbox is closed."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            events, self._events = self._events, []
            for event in events:
                yield event
                if event.kind == "finished":
                    return
            if self._is_closed:
                return


class EventHub:
    """Who listens to which job. To be used in the thread of the event loop."""

    def __init__(self) -> None:
        #: Told every event of every job, in the thread of the event loop: they must be quick.
        self.listeners: list[JobEventListener] = []
        self._mailboxes: dict[str, list[Mailbox]] = {}
        #: Of those to whom nothing but the end of a job matters.
        self._ends: dict[str, list[asyncio.Future[Job | None]]] = {}
        self._is_closed = False

    @contextmanager
    def mailbox(self, job_id: str) -> Iterator[Mailbox]:
        """Give the body a mailbox that gets every event of a job from now on."""
        mailbox = Mailbox()
        self._mailboxes.setdefault(job_id, []).append(mailbox)
        if self._is_closed:
            mailbox.close()
        try:
            yield mailbox
        finally:
            _remove(self._mailboxes, job_id, mailbox)

    @contextmanager
    def end(self, job_id: str) -> "Iterator[asyncio.Future[Job | None]]":
        """Give the body a future of the job when it is over; of ``None`` if the server stops before."""
        end: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._ends.setdefault(job_id, []).append(end)
        if self._is_closed:
            end.set_result(None)
        try:
            yield end
        finally:
            _remove(self._ends, job_id, end)

    def is_followed(self, job_id: str) -> bool:
        """Say whether somebody wants to know how far a job is."""
        return bool(self.listeners) or job_id in self._mailboxes

    def publish(self, event: JobEvent) -> None:
        """Tell the listeners of all jobs, and of this one."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # a plugin's code; the job goes on all the same
                logger.warning("a listener failed on an event of job %s", event.job.id, exc_info=True)
        for mailbox in self._mailboxes.get(event.job.id, ()):
            mailbox.put(event)
        if event.kind == "finished":
            for end in self._ends.get(event.job.id, ()):
                _settle(end, event.job)

    @property
    def listened(self) -> tuple[str, ...]:
        """Return the jobs that somebody listens to."""
        return tuple(self._mailboxes)

    def close(self) -> None:
        """Let every listener end."""
        self._is_closed = True
        for mailboxes in self._mailboxes.values():
            for mailbox in mailboxes:
                mailbox.close()
        for ends in self._ends.values():
            for end in ends:
                _settle(end, None)


def _remove(taken: dict[str, list[T]], job_id: str, which: T) -> None:
    others = taken[job_id]
    others.remove(which)
    if not others:
        del taken[job_id]


def _settle(end: "asyncio.Future[Job | None]", job: Job | None) -> None:
    if not end.done():  # whoever waited may have gone away
        end.set_result(job)
