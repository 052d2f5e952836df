"""The bytes of finished outputs: files with ranges, or where the storage has them."""

import asyncio
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import ApiError, Job, JobOutput, SglangError

from .records import error_of
from .uploaded import storage_failure, uploaded_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from sglang_core import Server


def finished_output(job: Job, index_text: str, param: str) -> JobOutput:
    """Return the output that a client asks for by number.

    :raises ApiError: 404 if it does not exist, with the reason.
    """
    if not job.is_over:
        message = f"{job.id} is {job.status}: its content can be fetched when it is completed"
        raise ApiError(404, message, code="not_ready", headers={"x-should-retry": "true"})
    for output in job.outputs:
        if str(output.index) == index_text:
            return output
    error = error_of(job)
    reason = f": {error['message']}" if error else f", it has {len(job.outputs)} output(s), counted from 0"
    raise ApiError(404, f"{job.id} has no output {index_text[:20]!r}{reason}", param=param, code="output_not_found")


async def content_response(server: "Server", request: "Request", job: Job, output: JobOutput) -> "Response":
    """Return the file, with ranges and conditions, or what a storage has of it; 404 if it is gone."""
    from .stored_files import StoredFile

    async def uploaded() -> "Response":
        answer = await uploaded_response(server, request, job, output)
        if answer is None:
            raise output_gone(job, output)
        return answer

    path = server.jobs.content_path(job, output.index)
    if path is None:
        return await uploaded()
    return StoredFile(path, output.media_type, f"{job.id}_{output.index}{path.suffix}", otherwise=uploaded)


async def read_output(server: "Server", job: Job, output: JobOutput) -> bytes:
    """Return the bytes of an output, wherever it is.

    :raises ApiError: 404 if it is gone, 502 if the storage fails.
    """
    path = server.jobs.content_path(job, output.index)
    return await asyncio.to_thread(_read, server, job, output, path)


def _read(server: "Server", job: Job, output: JobOutput, path: Path | None) -> bytes:
    if path is not None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            pass  # uploaded a moment ago
    if output.object_key is not None and server.storage is not None:
        try:
            return b"".join(server.storage.read(output.object_key))
        except SglangError as error:
            raise storage_failure(job, output, error) from error
    raise output_gone(job, output)


def output_gone(job: Job, output: JobOutput) -> ApiError:
    """Return the answer for an output whose file is nowhere."""
    return ApiError(404, f"the file of {job.id}, output {output.index}, is gone from the server", code="output_gone")


def extension_of(media_type: str) -> str:
    """Return the file extension of a media type, with its dot."""
    return mimetypes.guess_extension(media_type) or ".bin"
