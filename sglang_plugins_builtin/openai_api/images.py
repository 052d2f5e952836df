"""``/v1/images``: generations, edits, and the jobs behind them."""

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sglang_core import ApiError, Job

from .access import find_job
from .bodies import read_request
from .contents import content_response, finished_output, read_output
from .event_streams import events_response, stream_response
from .fields import ImageInput
from .image_streams import image_events
from .job_routes import JobRoutes
from .records import image_record, inference_time_s, output_url, size_of
from .requests import ImageEditRequest, ImageFields, ImageGenerationRequest
from .submission import Submission, accept, require_kind, settings_of
from .uploaded import with_current_urls
from .waiting import raise_failure, wait_for

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from sglang_core import Server

_INSTEAD = "POST /v1/videos"


class ImageRoutes:
    """The endpoints of one server."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    def routes(self) -> "Sequence[BaseRoute]":
        """Return all routes."""
        from starlette.routing import Route

        jobs = JobRoutes(self._server, "image", image_record)
        return [
            Route("/v1/images/generations", self.generate, methods=["POST"]),
            Route("/v1/images/edits", self.edit, methods=["POST"]),
            Route("/v1/images", jobs.list, methods=["GET"]),
            Route("/v1/images/{job_id}", jobs.retrieve, methods=["GET"]),
            Route("/v1/images/{job_id}", jobs.delete, methods=["DELETE"]),
            Route("/v1/images/{job_id}/cancel", jobs.cancel, methods=["POST"]),
            Route("/v1/images/{job_id}/events", self.events, methods=["GET"]),
            Route("/v1/images/{job_id}/content", self.content, methods=["GET"]),
        ]

    async def generate(self, request: "Request") -> "Response":
        """Make images of a prompt."""
        require_kind(self._server, "image", _INSTEAD)
        fields = await read_request(request, ImageGenerationRequest)
        if "image" in self._server.plan.call.required:
            message = "the model of this server starts from an image: use POST /v1/images/edits"
            raise ApiError(400, message, param="model", code="unsupported_model")
        return await self._serve(request, fields, "images.generations", "url", ())

    async def edit(self, request: "Request") -> "Response":
        """Make images of a prompt and of images."""
        require_kind(self._server, "image", _INSTEAD)
        fields = await read_request(request, ImageEditRequest, takes_form=True)
        images = (*(fields.image or ()), *(ImageInput(url=url, field="url") for url in fields.url or ()))
        if not images:
            message = "there is no image to start from: give 'image' (a file) or 'url'"
            raise ApiError(400, message, param="image", code="missing_required_parameter")
        if not self._server.plan.call.takes_image:
            raise ApiError(400, self._without_images(), param="image", code="unsupported_model")
        return await self._serve(request, fields, "images.edits", "b64_json", images, fields.mask)

    def _without_images(self) -> str:
        others = self._server.backends_that_take_images()
        instead = "use POST /v1/images/generations"
        if others:
            return (
                f"the model of this server is loaded without images: {instead}, or start it with --backend {others[0]}"
            )
        return f"the model of this server takes no image: {instead}"

    async def _serve(
        self,
        request: "Request",
        fields: ImageFields,
        operation: str,
        response_format: str,
        images: Sequence[ImageInput],
        mask: ImageInput | None = None,
    ) -> "Response":
        submission = _submission(self._server, fields, operation, response_format)
        job, is_new = await accept(self._server, request, submission, images, mask)
        if fields.run_in_background:
            return await self._started(request, job)
        # A client that sends a key means to come back for the job, and one of an earlier request is not its own.
        is_kept = not is_new or job.idempotency_key is not None
        if fields.stream:
            partial_images = fields.partial_images or 0
            return stream_response(image_events(self._server, job, partial_images, is_kept=is_kept))
        over = await wait_for(self._server, request, job, is_kept=is_kept)
        return await self._answer(request, over)

    async def _started(self, request: "Request", job: Job) -> "Response":
        from starlette.responses import JSONResponse

        [job] = await with_current_urls(self._server, [job])  # one of before may be over
        headers = {"Location": self._server.url_for(request, f"/v1/images/{job.id}")}
        return JSONResponse(image_record(self._server, request, job), status_code=202, headers=headers)

    async def _answer(self, request: "Request", job: Job | None) -> "Response":
        from starlette.responses import Response

        if job is None:  # nobody is there to read it
            return Response(status_code=499)
        raise_failure(job)
        [job] = await with_current_urls(self._server, [job])
        outputs = [await self._image(request, job, index) for index in range(len(job.outputs))]
        answer = {
            "created": int(job.completed_at or job.created_at),
            "data": outputs,
            "output_format": job.api["output_format"],
            "size": size_of(job),
            "background": "opaque",
            "usage": None,
            "id": job.id,
            "inference_time_s": inference_time_s(job),
        }
        has_pictures = job.api["response_format"] == "b64_json"  # base64 of many megapixels takes its time
        body = await asyncio.to_thread(_encoded, answer) if has_pictures else _encoded(answer)
        return Response(body, media_type="application/json", headers={"x-image-id": job.id})

    async def _image(self, request: "Request", job: Job, index: int) -> dict[str, Any]:
        output = job.outputs[index]
        shown: dict[str, Any] = {"url": None, "b64_json": None}
        if job.api["response_format"] == "b64_json":
            shown["b64_json"] = await read_output(self._server, job, output)
        else:
            shown["url"] = output_url(self._server, request, job, output)
        return {**shown, "revised_prompt": job.settings.get("prompt"), "seed": output.seed}

    async def content(self, request: "Request") -> "Response":
        """Return the file of an image."""
        job = await find_job(self._server, request, "image")
        output = finished_output(job, request.query_params.get("variant", "0"), "variant")
        return await content_response(self._server, request, job, output)

    async def events(self, request: "Request") -> "Response":
        """Tell how a job goes on."""
        job = await find_job(self._server, request, "image")
        return events_response(self._server, request, job, image_record)


def _encoded(answer: dict[str, Any]) -> bytes:
    import json

    for image in answer["data"]:
        if image["b64_json"] is not None:
            image["b64_json"] = base64.b64encode(image["b64_json"]).decode()
    return json.dumps(answer, separators=(",", ":")).encode()


def _submission(server: "Server", fields: ImageFields, operation: str, response_format: str) -> Submission:
    """Return what makes a job of a request.

    :raises ApiError: if two fields do not go together.
    """
    partial_images = fields.partial_images or 0
    if partial_images and not fields.stream:
        message = "'partial_images' needs 'stream': true"
        raise ApiError(400, message, param="partial_images", code="invalid_value")
    if fields.stream and fields.run_in_background:
        message = "'stream' and 'run_in_background' exclude each other: follow the job at /v1/images/{id}/events"
        raise ApiError(400, message, param="run_in_background", code="invalid_value")
    if partial_images and (fields.n or 1) > 1:
        message = "'partial_images' are sent for one image: give 'n' 1, or leave 'partial_images' out"
        raise ApiError(400, message, param="n", code="invalid_value")
    settings = settings_of(server, fields)
    if partial_images:
        settings["num_previews"] = partial_images
    extension = {"jpeg": "jpg"}.get(fields.output_format or "png", fields.output_format or "png")
    return Submission(
        operation=operation,
        kind="image",
        settings=settings,
        api={
            "model": fields.model,
            "response_format": fields.response_format or response_format,
            "output_format": {"jpg": "jpeg"}.get(extension, extension),
        },
        extension=extension,
        priority=fields.priority or 0,
        webhook_url=fields.webhook_url,
    )
