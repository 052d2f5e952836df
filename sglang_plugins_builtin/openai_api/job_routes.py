"""What jobs of both kinds have in common: the list, the record, cancelling, deleting."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from sglang_core import ApiError, Job, JobQuery, MediaKind

from .access import find_job, reader_of
from .polling import Polling
from .uploaded import with_current_urls

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sglang_core import Server

    Record = Callable[[Server, Request, Job], Mapping[str, Any]]

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100
_LIST_PARAMETERS = ("after", "limit", "order")
#: How long a client that deletes a running job waits for it to stop.
_STOP_TIMEOUT_S = 20.0


class JobRoutes:
    """Endpoints for the jobs of one kind."""

    def __init__(self, server: "Server", kind: MediaKind, record: "Record") -> None:
        self._server = server
        self._kind: MediaKind = kind
        self._record = record
        self._polling = Polling(server)

    async def list(self, request: "Request") -> "Response":
        """Return a page of jobs, the newest first unless asked otherwise."""
        from starlette.responses import JSONResponse

        query = _query(request, self._kind, reader_of(self._server, request))
        # One more than asked for tells whether there are further ones.
        found = await self._server.jobs.list(query)
        page = await with_current_urls(self._server, found[: query.limit - 1])
        records = [self._record(self._server, request, job) for job in page]
        return JSONResponse(
            {
                "object": "list",
                "data": records,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": len(found) > len(page),
            }
        )

    async def retrieve(self, request: "Request") -> "Response":
        """Return a job, and when to ask again."""
        return await self.answer(request, await find_job(self._server, request, self._kind))

    async def answer(self, request: "Request", job: Job, *, status: int = 200) -> "Response":
        """Return the record of a job as an answer."""
        from starlette.responses import JSONResponse

        [job] = await with_current_urls(self._server, [job])
        headers = self._polling.headers(request, job)
        return JSONResponse(self._record(self._server, request, job), status_code=status, headers=headers)

    async def cancel(self, request: "Request") -> "Response":
        """Stop a job between two steps, or before it runs."""
        job = await find_job(self._server, request, self._kind)
        if job.status in {"completed", "failed"}:
            raise ApiError(400, f"{job.id} is {job.status} already and can not be cancelled", code="already_over")
        cancelled = await self._server.jobs.cancel(job.id)
        return await self.answer(request, cancelled or job)

    async def delete(self, request: "Request") -> "Response":
        """Forget a job and delete its files; one that is not over is cancelled first."""
        from starlette.responses import JSONResponse

        job = await find_job(self._server, request, self._kind)
        if not job.is_over:
            job = await self._stop(job)
        await self._server.jobs.delete(job.id)
        return JSONResponse({"id": job.id, "object": f"{self._kind}.deleted", "deleted": True})

    async def _stop(self, job: Job) -> Job:
        await self._server.jobs.cancel(job.id)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                stopped = await self._server.jobs.wait(job.id)
        except TimeoutError as error:
            message = f"{job.id} is being cancelled and has not stopped yet; delete it again in a moment"
            raise ApiError(409, message, code="still_running") from error
        return stopped


def _query(request: "Request", kind: MediaKind, owner: str | None) -> JobQuery:
    for name in request.query_params:
        if name not in _LIST_PARAMETERS:
            message = f"unknown parameter '{name[:60]}': known are {', '.join(_LIST_PARAMETERS)}"
            raise ApiError(400, message, param=name[:60], code="unknown_parameter")
    limit_text = request.query_params.get("limit", str(_DEFAULT_LIMIT))
    is_number = limit_text.isascii() and limit_text.isdigit() and len(limit_text) <= 4
    if not is_number or not 1 <= int(limit_text) <= _MAX_LIMIT:
        message = f"'limit' is {limit_text[:20]!r}, it takes a whole number from 1 to {_MAX_LIMIT}"
        raise ApiError(400, message, param="limit", code="invalid_value")
    order = request.query_params.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise ApiError(400, f"'order' is {order[:20]!r}, it takes asc or desc", param="order", code="invalid_value")
    after = request.query_params.get("after") or None
    return JobQuery(kind=kind, owner=owner, after=after, limit=int(limit_text) + 1, order=cast(Any, order))
