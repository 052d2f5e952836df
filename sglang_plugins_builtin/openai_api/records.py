"""Jobs as clients see them, in the shape of OpenAI's types with further fields beside."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sglang_core import Job, JobError, JobOutput, JobStatus

from .submission import shown_settings
from .wording import said_to_clients

if TYPE_CHECKING:
    from starlette.requests import Request

    from sglang_core import Server

#: OpenAI's clients know four states. One that is being cancelled still runs, and one that was cancelled has failed with
#: the code ``cancelled``: a client that polls ends as it should. The field ``state`` tells the exact state.
STATUSES: Mapping[JobStatus, str] = {
    "queued": "queued",
    "in_progress": "in_progress",
    "cancelling": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "failed",
}


def video_record(server: "Server", request: "Request", job: Job) -> dict[str, Any]:
    """Return a job that makes clips as OpenAI's ``Video``."""
    fps, num_frames = job.api.get("fps"), job.api.get("num_frames")
    if job.outputs:
        fps, num_frames = job.outputs[0].fps or fps, job.outputs[0].num_frames
    return {
        **_common(server, request, job),
        "object": "video",
        "seconds": job.api.get("seconds") or _seconds(num_frames, fps),
        "num_frames": num_frames,
        "fps": fps,
        "remixed_from_video_id": job.api.get("remixed_from_video_id"),
    }


def image_record(server: "Server", request: "Request", job: Job) -> dict[str, Any]:
    """Return a job that makes images; OpenAI's API has no such record."""
    return {**_common(server, request, job), "object": "image", "operation": job.operation}


def _common(server: "Server", request: "Request", job: Job) -> dict[str, Any]:
    urls = [output_url(server, request, job, output) for output in job.outputs]
    return {
        "id": job.id,
        "status": STATUSES[job.status],
        "state": job.status,
        "progress": 100 if job.status == "completed" else min(99, int(job.progress * 100)),
        "stage": None if job.is_over else job.stage,
        "created_at": int(job.created_at),
        "started_at": _whole(job.started_at),
        "completed_at": _whole(job.completed_at),
        "expires_at": _whole(job.expires_at),
        "model": job.api.get("model") or server.model_names[0],
        "prompt": job.settings.get("prompt"),
        "size": size_of(job),
        "error": error_of(job),
        "num_outputs": len(job.outputs) if job.is_over else job.api.get("num_outputs"),
        "url": urls[0] if urls else None,
        "urls": urls or None,
        "outputs": [_output(output, url) for output, url in zip(job.outputs, urls, strict=True)],
        "settings": shown_settings(job),
        "queue_position": server.jobs.queue_position(job.id) if job.status == "queued" else None,
        "wait_s": server.jobs.wait_s(job.id) if job.status == "queued" else None,
        "inference_time_s": inference_time_s(job),
        "timings_s": dict(job.timings_s),
    }


def _output(output: JobOutput, url: str) -> dict[str, Any]:
    return {
        "index": output.index,
        "url": url,
        "media_type": output.media_type,
        "width": output.width,
        "height": output.height,
        "num_frames": output.num_frames,
        "fps": output.fps,
        "num_bytes": output.num_bytes,
        "seed": output.seed,
        "is_uploaded": output.object_key is not None,
        "upload_error": output.upload_error,
    }


def output_url(server: "Server", request: "Request", job: Job, output: JobOutput) -> str:
    """Return the absolute URL of an output: that of the storage, else of this server."""
    if output.url is not None:
        return output.url
    selector = "variant" if job.kind == "image" else "index"
    return server.url_for(request, f"/v1/{job.kind}s/{job.id}/content?{selector}={output.index}")


def size_of(job: Job) -> str:
    """Return ``WIDTHxHEIGHT``: of the output, or as it was planned."""
    if job.outputs:
        return f"{job.outputs[0].width}x{job.outputs[0].height}"
    width, height = job.api.get("width"), job.api.get("height")
    return f"{width}x{height}" if width and height else "auto"


def error_of(job: Job) -> dict[str, str] | None:
    """Return why a job failed, in OpenAI's shape."""
    if job.status in {"cancelled", "cancelling"}:
        return {"code": "cancelled", "message": "the job was cancelled"} if job.status == "cancelled" else None
    if job.status != "failed":
        return None
    error = job.error or JobError(code="failed", message="the job failed")
    return {"code": error.code, "message": said_to_clients(error.message, error.remedy)}


def inference_time_s(job: Job) -> float | None:
    """Return how long the job ran, without the time in which others ran in its middle."""
    if job.started_at is None or job.completed_at is None:
        return None
    return round(max(0.0, job.completed_at - job.started_at - job.paused_s), 3)


def _whole(time_s: float | None) -> int | None:
    return None if time_s is None else int(time_s)


def _seconds(num_frames: int | None, fps: float | None) -> str:
    """Return the length in whole seconds, at least one, as OpenAI's type wants it: a text."""
    return str(max(1, round(num_frames / fps))) if num_frames and fps else "1"
