"""What the page shows of jobs beyond the API: the queue, receipts, inputs, and content that a storage has."""

import asyncio
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_core import ApiError, Job, JobQuery

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import Server

_MAX_SHOWN = 50
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
#: Of the files that requests bring: a browser is handed nothing else.
_INPUT_TYPES = {".png": "image/png", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}


class JobViews:
    """Endpoints of one server; each shows a client its own jobs, and all of them to a key for administration."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    def routes(self) -> "Sequence[BaseRoute]":
        """Return all routes."""
        from starlette.routing import Route

        return [
            Route("/playground/api/queue", self.queue, methods=["GET"]),
            Route("/playground/api/receipts/{job_id}", self.receipts, methods=["GET"]),
            Route("/playground/api/inputs/{job_id}", self.inputs, methods=["GET"]),
            Route("/playground/api/inputs/{job_id}/{index:int}", self.input, methods=["GET"]),
            Route("/playground/api/content/{job_id}/{index:int}", self.content, methods=["GET"]),
        ]

    async def queue(self, request: "Request") -> "Response":
        """Return the jobs that run and wait, in the order in which they are expected to run."""
        from starlette.responses import JSONResponse

        query = JobQuery(
            kind=self._server.plan.kind,
            owner=self._reader(request),
            statuses=("queued", "in_progress", "cancelling"),
            limit=_MAX_SHOWN,
            order="asc",
        )
        shown = [self._entry(job) for job in await self._server.jobs.list(query)]
        shown.sort(key=lambda entry: (entry["state"] == "queued", entry["queue_position"] or 0))
        load = self._server.jobs.statistics()
        return JSONResponse({"jobs": shown, "num_queued": load.queued, "num_running": load.running})

    def _entry(self, job: Job) -> dict[str, Any]:
        is_queued = job.status == "queued"
        return {
            "id": job.id,
            "state": job.status,
            "stage": job.stage,
            "progress": min(99, int(job.progress * 100)),
            "prompt": job.settings.get("prompt"),
            "queue_position": self._server.jobs.queue_position(job.id) if is_queued else None,
            "wait_s": self._server.jobs.wait_s(job.id) if is_queued else None,
        }

    async def receipts(self, request: "Request") -> "Response":
        """Return the receipt of each output of a job."""
        from starlette.responses import JSONResponse

        job = await self._find(request)
        return JSONResponse({"id": job.id, "receipts": [dict(output.receipt) for output in job.outputs]})

    async def inputs(self, request: "Request") -> "Response":
        """Return what a job started from: its images, and last the mask if it had one."""
        from starlette.responses import JSONResponse

        job = await self._find(request)
        paths = await asyncio.to_thread(lambda: [self._input_path(name) for name in job.input_files])
        entries = [
            {"index": index, "role": "image", "is_there": path is not None, "media_type": _media_type(name)}
            for index, (name, path) in enumerate(zip(job.input_files, paths, strict=True))
        ]
        if entries and job.settings.get("mask_path") is not None:
            entries[-1]["role"] = "mask"
        return JSONResponse({"id": job.id, "inputs": entries})

    async def input(self, request: "Request") -> "Response":
        """Return one of them, as the request brought it."""
        from starlette.responses import Response

        job = await self._find(request)
        index = request.path_params["index"]
        if index >= len(job.input_files):
            message = f"{job.id} started from {len(job.input_files)} image(s), counted from 0"
            raise ApiError(404, message, code="input_not_found")
        name = job.input_files[index]
        content = await asyncio.to_thread(self._read_input, name)
        if content is None:
            raise ApiError(404, f"image {index} that {job.id} started from is gone from the server", code="input_gone")
        return Response(content, media_type=_media_type(name))

    def _read_input(self, name: str) -> bytes | None:
        """Return the bytes of an input, read at once: its job may be deleted between a check and the answer."""
        path = self._input_path(name)
        try:
            return None if path is None else path.read_bytes()
        except FileNotFoundError:
            return None

    def _input_path(self, name: str) -> Path | None:
        """Return the file of an input; ``None`` if it is gone, no image, or not inside the input folder."""
        folder = self._server.input_folder
        try:
            path = (folder / name).resolve()
            is_there = path.is_relative_to(folder.resolve()) and path.is_file()
        except (OSError, ValueError):
            return None
        return path if is_there and _media_type(name) is not None else None

    async def content(self, request: "Request") -> "Response":
        """Hand an uploaded output through: the page loads nothing from other hosts."""
        from starlette.responses import StreamingResponse

        job = await self._find(request)
        index = request.path_params["index"]
        output = next((output for output in job.outputs if output.index == index), None)
        storage = self._server.storage
        if output is None or output.object_key is None or storage is None:
            raise ApiError(404, f"{job.id} has no uploaded output {index}", code="output_not_found")
        chunks = iter(storage.read(output.object_key))
        # What is wrong shows with the first bytes, while there is still a status to answer with.
        first = await asyncio.to_thread(next, chunks, b"")
        content: Iterator[bytes] = itertools.chain((first,), chunks)
        return StreamingResponse(content, media_type=output.media_type)

    async def _find(self, request: "Request") -> Job:
        job_id = request.path_params["job_id"]
        job = None
        if _ID.fullmatch(job_id):
            job = await self._server.jobs.get(job_id, owner=self._reader(request))
        if job is None:
            raise ApiError(404, f"there is no job {job_id[:100]!r}", code="job_not_found")
        return job

    def _reader(self, request: "Request") -> str | None:
        key = self._server.api_key_of(request)
        return None if key is None or "admin" in key.scopes else key.name


def _media_type(name: str) -> str | None:
    return _INPUT_TYPES.get(Path(name).suffix)
