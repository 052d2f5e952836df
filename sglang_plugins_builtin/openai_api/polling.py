"""When a client should ask for a job again: soon for what is about to end, and seldom where many ask."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from sglang_core import Job

if TYPE_CHECKING:
    from starlette.requests import Request

    from sglang_core import Server

#: Between two questions, in milliseconds.
_SHORTEST, _USUAL, _LONGEST = 250, 500, 5000
#: Where so many clients ask that the server would be busy with answers.
_LONGEST_OF_ALL = 30_000
#: How often a client asks while its job waits, or for the rest of its run.
_POLLS_PER_WAIT = 5
#: Questions in a second that all clients together may ask: a tenth to a fifth of one core.
_MOST_PER_S = 100
#: A client that has not asked for so long asks no more.
_FORGOTTEN_S = 40.0
_MAX_CLIENTS = 20_000
#: Of a run that has got so far the rest can be told.
_TELLING_PROGRESS = 0.05


class Polling:
    """Tells the clients of one server when to ask again.

    :param now: seconds of a clock that only goes forward.
    """

    def __init__(self, server: "Server", now: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._now = now
        #: When each client asked last, the longest ago first.
        self._clients: OrderedDict[object, float] = OrderedDict()

    def headers(self, request: "Request", job: Job) -> dict[str, str]:
        """Return the header ``openai-poll-after-ms`` for the client of a job; none for one that is over."""
        if job.is_over:
            return {}
        least_ms = 1000 * self._count(request.client) // _MOST_PER_S
        wanted_ms = min(_LONGEST, max(_SHORTEST, self._wanted_ms(job)))
        return {"openai-poll-after-ms": str(min(_LONGEST_OF_ALL, max(wanted_ms, least_ms)))}

    def _wanted_ms(self, job: Job) -> int:
        if job.status == "queued":
            left_s = self._server.jobs.wait_s(job.id)
        elif job.started_at is not None and job.progress >= _TELLING_PROGRESS:
            left_s = (time.time() - job.started_at) * (1 - job.progress) / job.progress
        else:
            left_s = None
        return _USUAL if left_s is None else int(left_s * 1000 / _POLLS_PER_WAIT)

    def _count(self, client: object) -> int:
        """Note that a client asks, and return how many there are; ``None`` (a Unix socket) is one."""
        now = self._now()
        self._clients[client] = now
        self._clients.move_to_end(client)
        while now - next(iter(self._clients.values())) > _FORGOTTEN_S or len(self._clients) > _MAX_CLIENTS:
            self._clients.popitem(last=False)
        return len(self._clients)
