"""Waiting for a job while its client waits, and no longer."""

import asyncio
from typing import TYPE_CHECKING

from sglang_core import ApiError, Job

from .records import error_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from sglang_core import Server

#: Status of a failed job for a client that waited, by the code of its error. The others are 500.
_STATUSES = {"invalid_request": 400, "out_of_memory": 400, "cancelled": 409, "crashed": 503, "hung": 503}
_STATUSES |= {"deadline_exceeded": 504, "output_not_written": 507}
#: Cancellations that nobody waits for; a task without a reference may vanish.
_cancellations: set[asyncio.Task[None]] = set()


async def wait_for(server: "Server", request: "Request", job: Job, *, is_kept: bool) -> Job | None:
    """Wait until a job is over; ``None`` if the client hung up before, and the job is cancelled then.

    :param is_kept: the job goes on without its client.
    """
    finishing = asyncio.ensure_future(server.jobs.wait(job.id))
    leaving = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({finishing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.add_done_callback(_ignore)
        leaving.cancel()  # and not waited for: the client is to have its answer
        if not finishing.done():
            finishing.cancel()
            leave(server, job, is_kept=is_kept)
    return finishing.result() if finishing.done() else None


async def _hang_up(request: "Request") -> None:
    """Return when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _ignore(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()  # that of a client whose answer is ready


def leave(server: "Server", job: Job, *, is_kept: bool) -> None:
    """Cancel a job whose client is gone, without waiting for it."""
    if not is_kept and not server.is_stopping:  # a server that stops keeps what it accepted
        task = asyncio.get_running_loop().create_task(_cancel(server, job.id))
        _cancellations.add(task)
        task.add_done_callback(_cancellations.discard)


async def _cancel(server: "Server", job_id: str) -> None:
    await server.jobs.cancel(job_id)


def stopping_message(job: Job) -> str:
    """Say what becomes of a job whose client waits while the server stops."""
    return f"the server is stopping; {job.id} is kept, and GET /v1/{job.kind}s/{job.id} tells how it goes on"


def raise_failure(job: Job) -> None:
    """Answer a job that did not complete with its reason.

    :raises ApiError: unless it is completed. Clients are told not to repeat what would fail again.
    """
    if not job.is_over:
        headers = {"x-should-retry": "false"}  # it would be a second job
        raise ApiError(503, stopping_message(job), code="server_stopping", headers=headers)
    error = error_of(job)
    if error is None:
        return
    status = _STATUSES.get(error["code"], 500)
    headers = {"x-should-retry": "true" if status == 503 else "false"}
    raise ApiError(status, f"{job.id}: {error['message']}", code=error["code"], headers=headers)
