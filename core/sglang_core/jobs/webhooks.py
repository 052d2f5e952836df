"""Telling a URL that a job is over, in the shape of OpenAI's webhooks, signed as Standard Webhooks are.

A delivery that fails is tried again, ever more seldom, for about a day and a half; how far it has come is in the job's
record, so that a restart goes on. A receiver may get one announcement twice (a server that ends between delivery and
record): ``webhook-id`` is the same then.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from attrs import evolve

from ..errors import ConfigError, RequestError, SglangError
from ..fetcher import check_address, post, shown_reference
from ..options.jobs import JobOptions, read_webhook_secret
from .live import LiveJobs
from .records import Job, WebhookState
from .threads import DaemonThreads

logger = logging.getLogger(__name__)

#: Seconds before the second, third, ... attempt.
RETRY_DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0, 43200.0)
TIMEOUT_S = 15.0
_AT_ONCE = 4
_GONE = 410
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def webhook_body(job: Job) -> bytes:
    """Return the JSON that announces the end of a job: its type is for example ``video.completed``."""
    values = {
        "id": webhook_id(job),
        "object": "event",
        "type": f"{job.kind}.{job.status}",
        "created_at": int(job.completed_at or job.created_at),
        "data": {"id": job.id},
    }
    return json.dumps(values).encode()


def webhook_id(job: Job) -> str:
    """Return the id of the announcement, the same in every delivery."""
    return f"evt_{job.id}"


def webhook_headers(job: Job, body: bytes, key: bytes, now: float) -> dict[str, str]:
    """Return the headers of one delivery; the signature covers id, time and body.

    Source: the Standard Webhooks specification, symmetric signatures (``v1``).
    """
    timestamp = str(int(now))
    signed = b".".join((webhook_id(job).encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": webhook_id(job),
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }


class WebhookSender:
    """Delivers the announcements of finished jobs, several at a time, each when it is due."""

    def __init__(
        self,
        live: LiveJobs,
        options: JobOptions,
        *,
        delays_s: Sequence[float] = RETRY_DELAYS_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._live = live
        self._key = None if options.webhook_secret is None else read_webhook_secret(options.webhook_secret)
        self._allow = _EVERYWHERE if options.webhook_allow_private else None
        self._delays_s = delays_s
        self._clock = clock
        #: When each waiting announcement is due, by job.
        self._due: dict[str, float] = {}
        self._news = asyncio.Event()
        # threads of its own: a receiver that does not answer must not hold up other blocking work
        self._threads = DaemonThreads(_AT_ONCE, "webhook")
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def num_waiting(self) -> int:
        """Return how many announcements are not delivered yet."""
        return len(self._due) + len(self._running)

    def check(self, url: str) -> None:
        """Refuse a URL that nothing would be delivered to.

        :raises RequestError: if this server signs no webhooks, or the URL can be seen to lead nowhere public.
        """
        if self._key is None:
            raise RequestError(
                "webhook_url does not apply: this server has no secret to sign webhooks with",
                "leave webhook_url out, or start the server with SGLANG_WEBHOOK_SECRET",
            )
        try:
            check_address(url, allow=self._allow)
        except RequestError as error:
            remedy = "give a public http or https URL; an operator can allow others with --webhook-allow-private"
            raise RequestError(f"webhook_url: {error.problem}", remedy) from error

    def first_state(self, job: Job) -> WebhookState | None:
        """Return what to put on the record of a job when it ends."""
        return WebhookState(next_at=self._clock()) if job.webhook_url else None

    def add(self, job: Job) -> None:
        """Deliver the announcement of a job that is over, unless that was done."""
        if job.is_over and job.webhook is not None and job.webhook.next_at is not None:
            self._due[job.id] = job.webhook.next_at
            self._news.set()

    def forget(self, job_id: str) -> None:
        """Announce a deleted job no more."""
        self._due.pop(job_id, None)

    async def run(self) -> None:
        """Deliver what is due, until cancelled."""
        try:
            while True:
                now = self._clock()
                free = _AT_ONCE - len(self._running)
                for job_id in sorted((i for i, due in self._due.items() if due <= now), key=self._due.__getitem__)[
                    :free
                ]:
                    del self._due[job_id]
                    self._running[job_id] = asyncio.create_task(self._deliver(job_id))
                self._news.clear()
                pause_s = max(0.01, min(self._due.values()) - now) if self._due and free > 0 else None
                try:
                    await asyncio.wait_for(self._news.wait(), pause_s)
                except TimeoutError:
                    continue
        finally:
            for task in self._running.values():
                task.cancel()

    async def _deliver(self, job_id: str) -> None:
        try:
            job = await self._live.get(job_id)
            if job is None or not job.webhook_url or job.webhook is None:
                return
            problem = await self._threads.run(partial(self._post, job))
            changed = await self._live.change(job_id, lambda now: evolve(now, webhook=self._next_state(now, problem)))
            if changed is not None:
                self.add(changed)
                _log(changed)
        except SglangError as error:  # the store: the announcement stays due, at worst it is made twice
            logger.warning("the webhook of job %s is not on record: %s", job_id, error.problem)
            self._due[job_id] = self._clock() + self._delays_s[0]
        finally:
            self._running.pop(job_id, None)
            self._news.set()

    def _post(self, job: Job) -> str | None:
        """Deliver once; return why it did not work, if so."""
        body = webhook_body(job)
        if self._key is None:
            return "this server has no webhook secret"
        headers = webhook_headers(job, body, self._key, self._clock())
        try:
            status = post(job.webhook_url or "", body, headers, timeout_s=TIMEOUT_S, allow=self._allow)
        except (RequestError, ConfigError) as error:
            return error.problem
        return None if 200 <= status < 300 else f"{shown_reference(job.webhook_url or '')} answers {status}"

    def _next_state(self, job: Job, problem: str | None) -> WebhookState | None:
        if job.webhook is None:
            return None
        attempts, now = job.webhook.attempts + 1, self._clock()
        if problem is None:
            return WebhookState(attempts=attempts, delivered_at=now)
        is_last = attempts > len(self._delays_s) or problem.endswith(f"answers {_GONE}")
        return WebhookState(
            attempts=attempts, next_at=None if is_last else now + self._delays_s[attempts - 1], problem=problem
        )


def _log(job: Job) -> None:
    state = job.webhook
    if state is None or state.delivered_at is not None:
        return
    if state.next_at is None:
        logger.warning("the webhook of job %s is given up: %s", job.id, state.problem)
    else:
        logger.info("the webhook of job %s is tried again later: %s", job.id, state.problem)
