"""``stream: true``: OpenAI's server-sent events of one request for images."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from sglang_core import Job, JobOutput

from .contents import read_output
from .event_streams import HEARTBEAT, event_bytes, with_heartbeats
from .records import error_of
from .waiting import leave, stopping_message

if TYPE_CHECKING:
    from sglang_core import Server

_NAMES = {"images.generations": "image_generation", "images.edits": "image_edit"}
#: OpenAI's clients expect a count of tokens; these models have none.
_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


async def image_events(server: "Server", job: Job, partial_images: int, *, is_kept: bool) -> AsyncIterator[bytes]:
    """Yield partial images, then each image, or the error. The job is cancelled when the client hangs up."""
    num_sent, is_over = 0, False
    try:
        async for event in with_heartbeats(server.jobs.events(job.id)):
            if event is None:
                yield HEARTBEAT
                continue
            job = event.job
            if event.preview_png is not None and num_sent < partial_images:
                yield await _partial(job, event.preview_png, num_sent)
                num_sent += 1
            if job.is_over:
                is_over = True
                break
        async for chunk in _ends(server, job):
            yield chunk
    finally:
        if not is_over:
            leave(server, job, is_kept=is_kept)


async def _ends(server: "Server", job: Job) -> AsyncIterator[bytes]:
    error = error_of(job)
    if not job.is_over:
        error = {"code": "server_stopping", "message": stopping_message(job)}
    if error is not None:
        shown = {"message": f"{job.id}: {error['message']}", "type": "server_error", "param": None}
        yield event_bytes("error", {"type": "error", "error": {**shown, "code": error["code"]}})
        return
    for output in job.outputs:
        yield await _completed(server, job, output)


async def _partial(job: Job, preview_png: bytes, index: int) -> bytes:
    """Return the event of a partial image; it is always a PNG, and says so."""
    shown = {**_common(job, "partial_image"), "output_format": "png", "partial_image_index": index}
    return await asyncio.to_thread(_with_image, shown, preview_png)


async def _completed(server: "Server", job: Job, output: JobOutput) -> bytes:
    content = await read_output(server, job, output)
    shown = {**_common(job, "completed"), "usage": _NO_USAGE, "index": output.index, "seed": output.seed}
    shown["size"] = f"{output.width}x{output.height}"
    return await asyncio.to_thread(_with_image, shown, content)


def _common(job: Job, what: str) -> dict[str, Any]:
    width, height = job.api.get("width"), job.api.get("height")
    return {
        "type": f"{_NAMES[job.operation]}.{what}",
        "created_at": int(time.time()),
        "size": f"{width}x{height}" if width and height else "auto",
        "quality": "auto",
        "background": "opaque",
        "output_format": job.api["output_format"],
        "id": job.id,
    }


def _with_image(shown: dict[str, Any], content: bytes) -> bytes:
    return event_bytes(shown["type"], {**shown, "b64_json": base64.b64encode(content).decode()})
