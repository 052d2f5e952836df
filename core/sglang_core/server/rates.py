"""How many requests each key or address may make: token buckets."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from .errors import too_many_requests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_UNITS_S = {"s": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "day": 86_400}
_RATE = re.compile(r"\s*([1-9]\d{0,8})\s*/\s*([a-z]+)\s*", re.IGNORECASE)
#: Reading is free: clients that poll for a result must not be refused it.
_FREE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_BUCKETS = 10_000


@frozen
class Rate:
    """So many requests in so many seconds."""

    count: int
    period_s: float


def parse_rate(text: str) -> Rate:
    """Return the rate that ``60/minute`` or ``2/s`` says.

    :raises ValueError: if it says none.
    """
    match = _RATE.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS_S:
        raise ValueError(f"expected a rate such as 60/minute or 2/second, not {text!r}")
    return Rate(int(match[1]), float(_UNITS_S[match[2].lower()]))


class TokenBuckets:
    """One bucket for each client: it holds a period's requests and fills up again steadily."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By client: tokens left, and when that was. The client that was quiet for longest is first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, rate: Rate) -> float:
        """Take one token; return 0, or how many seconds are left until there is one."""
        now = self._clock()
        tokens, since = self._buckets.pop(client, (float(rate.count), now))
        tokens = min(float(rate.count), tokens + (now - since) * rate.count / rate.period_s)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) * rate.period_s / rate.count
        self._buckets[client] = (tokens if wait_s else tokens - 1, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait_s


class RateLimits:
    """Refuses requests that start or change something beyond the rate of their key or address."""

    def __init__(self, app: "ASGIApp", rate: Rate | None) -> None:
        self._app = app
        self._rate = rate
        self._buckets = TokenBuckets()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Count the request, then pass it on or refuse it."""
        if scope["type"] != "http" or scope["method"] in _FREE_METHODS:
            await self._app(scope, receive, send)
            return
        key = scope["state"].get("api_key")
        rate = key.rate if key is not None and key.rate is not None else self._rate
        wait_s = 0.0 if rate is None else self._buckets.take(_client(scope), rate)
        if not wait_s or rate is None:
            await self._app(scope, receive, send)
            return
        message = f"more than {rate.count} requests in {rate.period_s:g} s; wait {wait_s:.1f} s and try again"
        await too_many_requests(message, wait_s).response()(scope, receive, send)


def _client(scope: "Scope") -> str:
    key = scope["state"].get("api_key")
    if key is not None:
        return f"key {key.name}"
    return f"address {scope['client'][0] if scope.get('client') else 'local'}"
