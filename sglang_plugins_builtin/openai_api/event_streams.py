"""Server-sent events: how a job goes on, while it goes on."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from sglang_core import Job

from .records import STATUSES
from .uploaded import with_current_urls

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    from sglang_core import JobEvent, Server

#: Silence after which a comment is sent, so that neither a proxy nor a client takes the connection for dead.
_HEARTBEAT_S = 10.0
HEARTBEAT = b": still here\n\n"


def event_bytes(name: str, data: Mapping[str, Any]) -> bytes:
    """Return one event as it is sent."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def stream_response(chunks: AsyncIterator[bytes]) -> "StreamingResponse":
    """Return an answer that sends the events as they come."""
    from starlette.responses import StreamingResponse

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)


async def with_heartbeats(events: "AsyncIterator[JobEvent]") -> "AsyncIterator[JobEvent | None]":
    """Yield the events, and ``None`` after each time of silence."""
    waiting: asyncio.Future[JobEvent] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({waiting}, timeout=_HEARTBEAT_S)
            if not done:
                yield None
                continue
            try:
                event = waiting.result()
            except StopAsyncIteration:
                return
            finally:
                waiting = None
            yield event
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def job_events(server: "Server", job: Job, record: Callable[[Job], Mapping[str, Any]]) -> AsyncIterator[bytes]:
    """Yield what happens to a job until it is over; the first event says how it stands, the last has its record."""
    async for event in with_heartbeats(server.jobs.events(job.id)):
        if event is None:
            yield HEARTBEAT
            continue
        if event.job.is_over:
            [job] = await with_current_urls(server, [event.job])
            event = evolve(event, job=job)
        yield event_bytes(event.kind, _event_json(event, record))
        if event.job.is_over:
            return


def _event_json(event: "JobEvent", record: Callable[[Job], Mapping[str, Any]]) -> dict[str, Any]:
    job = event.job
    shown: dict[str, Any] = {
        "type": event.kind,
        "id": job.id,
        "status": STATUSES[job.status],
        "state": job.status,
        "progress": 100 if job.status == "completed" else min(99, int(job.progress * 100)),
        "queue_position": event.queue_position,
        "wait_s": event.wait_s,
        "stage": event.stage,
        "step": event.index,
        "total_steps": event.total,
    }
    if event.preview_png is not None:
        shown["preview"] = {"media_type": "image/png", "b64_json": base64.b64encode(event.preview_png).decode()}
    if job.is_over:
        shown["record"] = record(job)
    return shown


def events_response(
    server: "Server", request: "Request", job: Job, record: "Callable[[Server, Request, Job], Mapping[str, Any]]"
) -> "StreamingResponse":
    """Return the answer that tells how a job goes on."""
    return stream_response(job_events(server, job, lambda job: record(server, request, job)))
