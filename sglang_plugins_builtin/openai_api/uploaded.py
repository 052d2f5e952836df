"""Outputs that a storage has: their URLs, which may have to be signed again, and their bytes handed through."""

import asyncio
import itertools
import logging
import mimetypes
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from sglang_core import ApiError, Job, JobOutput, OpenStorage, SglangError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sglang_core import Server

logger = logging.getLogger(__name__)

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def with_current_urls(server: "Server", jobs: Sequence[Job]) -> list[Job]:
    """Return jobs with URLs that work now: those of when they ended may have expired."""
    storage = server.storage
    if storage is None or not any(output.object_key for job in jobs for output in job.outputs):
        return list(jobs)
    return await asyncio.to_thread(lambda: [_with_current_urls(storage, job) for job in jobs])


def _with_current_urls(storage: OpenStorage, job: Job) -> Job:
    return evolve(job, outputs=tuple(_with_current_url(storage, output) for output in job.outputs))


def _with_current_url(storage: OpenStorage, output: JobOutput) -> JobOutput:
    if output.object_key is None:
        return output
    try:
        return evolve(output, url=storage.url_of(output.object_key))
    except SglangError as error:  # no keys to sign with at the moment: the old URL may be good still
        logger.warning("no new URL of an uploaded output: %s", error.problem)
        return output


async def uploaded_response(server: "Server", request: "Request", job: Job, output: JobOutput) -> "Response | None":
    """Return the answer for an output that is not here any more, as ``--uploaded-content`` says; ``None``: it is gone.

    :raises ApiError: 416 for a range that it does not have, 502 if the storage fails.
    """
    storage = server.storage
    if storage is None or output.object_key is None:
        return None
    if server.options.uploaded_content == "proxy":
        return await _handed_through(storage, request, job, output, output.object_key)
    from starlette.responses import RedirectResponse

    try:
        url = await asyncio.to_thread(storage.url_of, output.object_key)
    except SglangError as error:
        raise storage_failure(job, output, error) from error
    # The address may expire: who asks again gets a new one.
    return RedirectResponse(url, status_code=307, headers={"Cache-Control": "no-store"})


@frozen
class _Part:
    """Which bytes are asked for: from ``start`` to before ``end``."""

    start: int
    end: int
    is_whole: bool


async def _handed_through(
    storage: OpenStorage, request: "Request", job: Job, output: JobOutput, key: str
) -> "Response":
    from starlette.responses import Response, StreamingResponse

    size, etag = output.num_bytes, f'"{job.id}-{output.index}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Content-Disposition": _disposition(job, output)}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    part = _part(request, size, etag)
    if part is None:
        raise ApiError(
            416, f"{job.id}, output {output.index}, has {size:,} bytes", code="range_not_satisfiable",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    headers["Content-Length"] = str(part.end - part.start)
    if not part.is_whole:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    status = 200 if part.is_whole else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=output.media_type)
    chunks = iter(storage.read(key, part.start, None if part.is_whole else part.end - part.start))
    try:  # what is wrong shows with the first bytes, while there is still a status to answer with
        first = await asyncio.to_thread(next, chunks, b"")
    except SglangError as error:
        raise storage_failure(job, output, error) from error
    content: Iterator[bytes] = itertools.chain((first,), chunks)
    return StreamingResponse(content, status_code=status, headers=headers, media_type=output.media_type)


def _part(request: "Request", size: int, etag: str) -> _Part | None:
    """Return what the request's ``Range`` asks for; ``None`` if there are no such bytes.

    Whatever is no single range of bytes is answered with the whole, as the specification of HTTP allows.
    """
    whole = _Part(0, size, is_whole=True)
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or found[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return whole
    first, last = found[1], found[2]
    if not first:  # the last so many
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return whole
    return _Part(start, end, is_whole=False) if start < end else None


def _disposition(job: Job, output: JobOutput) -> str:
    extension = mimetypes.guess_extension(output.media_type) or ".bin"
    return f'inline; filename="{job.id}_{output.index}{extension}"'


def storage_failure(job: Job, output: JobOutput, error: SglangError) -> ApiError:
    """Return what a client is told where the storage gives no bytes: an operator finds the reason in the log."""
    logger.error("output %d of %s can not be read from the storage: %s", output.index, job.id, error.problem)
    message = f"the storage does not give the file of {job.id}, output {output.index}, now; try again in a moment"
    return ApiError(502, message, type="server_error", code="storage_failed", headers={"Retry-After": "5"})
