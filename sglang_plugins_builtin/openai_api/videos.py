"""``/v1/videos``: jobs that make clips."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from sglang_core import ApiError

from .access import find_job
from .bodies import read_request
from .contents import content_response, finished_output, output_gone
from .event_streams import events_response
from .fields import ImageInput
from .inputs import copy_inputs
from .job_routes import JobRoutes
from .records import video_record
from .requests import RemixRequest, VideoRequest
from .still_cache import STILLS, StillCache
from .submission import Submission, accept, accept_stored, new_job_id, require_kind, settings_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import Server

_INSTEAD = "POST /v1/images/generations"
#: For models that recommend no frame rate.
_DEFAULT_FPS = 24
_VARIANTS = ("video", "thumbnail", "spritesheet")


class VideoRoutes:
    """The endpoints of one server."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._stills = StillCache(server)
        self._jobs = JobRoutes(server, "video", video_record)

    def routes(self) -> "Sequence[BaseRoute]":
        """Return all routes."""
        from starlette.routing import Route

        return [
            Route("/v1/videos", self.create, methods=["POST"]),
            Route("/v1/videos", self._jobs.list, methods=["GET"]),
            Route("/v1/videos/{job_id}", self._jobs.retrieve, methods=["GET"]),
            Route("/v1/videos/{job_id}", self._jobs.delete, methods=["DELETE"]),
            Route("/v1/videos/{job_id}/cancel", self._jobs.cancel, methods=["POST"]),
            Route("/v1/videos/{job_id}/remix", self.remix, methods=["POST"]),
            Route("/v1/videos/{job_id}/events", self.events, methods=["GET"]),
            Route("/v1/videos/{job_id}/content", self.content, methods=["GET"]),
        ]

    async def create(self, request: "Request") -> "Response":
        """Accept a job and answer at once."""
        require_kind(self._server, "video", _INSTEAD)
        fields = await read_request(request, VideoRequest, takes_form=True)
        images = (
            *(fields.input_reference or ()),
            *([ImageInput(url=fields.reference_url, field="reference_url")] if fields.reference_url else []),
        )
        self._check_images(images)
        job, _ = await accept(self._server, request, _submission(self._server, fields), images)
        return await self._jobs.answer(request, job)

    def _check_images(self, images: Sequence[ImageInput]) -> None:
        call = self._server.plan.call
        if len(images) > 1:
            message = "give one of 'input_reference' and 'reference_url', not both"
            raise ApiError(400, message, param="reference_url", code="invalid_value")
        if images and not call.takes_image:
            message = "the model of this server takes no image: leave 'input_reference' out"
            raise ApiError(400, message, param="input_reference", code="unsupported_model")
        if not images and "image" in call.required:
            message = "the model of this server starts from an image: give 'input_reference'"
            raise ApiError(400, message, param="input_reference", code="missing_required_parameter")

    async def remix(self, request: "Request") -> "Response":
        """Make a clip with all settings of another, its seed too, and another prompt."""
        require_kind(self._server, "video", _INSTEAD)
        source = await find_job(self._server, request, "video")
        fields = await read_request(request, RemixRequest, takes_form=True)
        if source.status != "completed":
            message = f"{source.id} is {source.status}: only a completed video can be remixed"
            raise ApiError(400, message, param="video_id", code="invalid_value")
        kept = {
            name: value for name, value in source.settings.items() if name not in {"output_file_name", "image_path"}
        }
        submission = Submission(
            operation="videos.remix",
            kind="video",
            settings={**kept, "prompt": fields.prompt},
            api={
                "model": source.api.get("model"),
                "seconds": source.api.get("seconds"),
                "remixed_from_video_id": source.id,
            },
            extension="mp4",
        )
        job_id = new_job_id("video")
        stored = await asyncio.to_thread(copy_inputs, source.input_files, self._server.input_folder, job_id)
        job, _ = await accept_stored(self._server, request, submission, stored, job_id)
        return await self._jobs.answer(request, job)

    async def events(self, request: "Request") -> "Response":
        """Tell how a job goes on."""
        job = await find_job(self._server, request, "video")
        return events_response(self._server, request, job, video_record)

    async def content(self, request: "Request") -> "Response":
        """Return the clip, or a picture of it."""
        from .stored_files import StoredFile

        job = await find_job(self._server, request, "video")
        variant = request.query_params.get("variant", "video")
        if variant not in _VARIANTS:
            message = f"'variant' is {variant[:40]!r}, it takes one of {', '.join(_VARIANTS)}"
            raise ApiError(400, message, param="variant", code="invalid_value")
        output = finished_output(job, request.query_params.get("index", "0"), "index")
        if variant == "video":
            return await content_response(self._server, request, job, output)
        still = cast(Any, variant)
        path = await self._stills.get(job, output, still)

        async def gone() -> "Response":
            raise output_gone(job, output)

        return StoredFile(path, STILLS[still][1], path.name, otherwise=gone)


def _submission(server: "Server", fields: VideoRequest) -> Submission:
    """Return what makes a job of a request.

    :raises ApiError: if two fields do not go together.
    """
    settings = settings_of(server, fields)
    seconds = None
    if fields.seconds is not None:
        if fields.num_frames is not None:
            message = "'seconds' and 'num_frames' both say how long the clip is: give one of the two"
            raise ApiError(400, message, param="seconds", code="invalid_value")
        settings["num_frames"] = _frames_of(server, fields.seconds, fields.fps)
        seconds = f"{fields.seconds:g}"
    return Submission(
        operation="videos.create",
        kind="video",
        settings=settings,
        api={"model": fields.model, "seconds": seconds, "remixed_from_video_id": None},
        extension="mp4",
        priority=fields.priority or 0,
        webhook_url=fields.webhook_url,
    )


def _frames_of(server: "Server", seconds: float, fps: int | None) -> int:
    """Return the number of frames nearest to a length that the model can make."""
    rate = fps or server.plan.requests[0].fps or _DEFAULT_FPS
    step = server.plan.call.frames_step or 1
    return max(0, round((seconds * rate - 1) / step)) * step + 1
