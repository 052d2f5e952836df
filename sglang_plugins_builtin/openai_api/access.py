"""Whose jobs a request may see."""

import re
from typing import TYPE_CHECKING

from sglang_core import ApiError, Job, MediaKind

if TYPE_CHECKING:
    from starlette.requests import Request

    from sglang_core import Server

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NOUNS: dict[MediaKind, str] = {"image": "image", "video": "video"}


def reader_of(server: "Server", request: "Request") -> str | None:
    """Return whose jobs a request may see; ``None``: all, on a server without keys or with a key for administration."""
    key = server.api_key_of(request)
    return None if key is None or "admin" in key.scopes else key.name


async def find_job(server: "Server", request: "Request", kind: MediaKind) -> Job:
    """Return the job that the path names, if it is there and the client may see it.

    :raises ApiError: 404.
    """
    job_id = request.path_params["job_id"]
    job = None
    if _ID.fullmatch(job_id):
        job = await server.jobs.get(job_id, owner=reader_of(server, request))
    if job is None or job.kind != kind:
        noun = _NOUNS[kind]
        message = f"there is no {noun} {job_id[:100]!r}: it was deleted, has expired, or never was"
        raise ApiError(404, message, param=f"{noun}_id", code=f"{noun}_not_found")
    return job
