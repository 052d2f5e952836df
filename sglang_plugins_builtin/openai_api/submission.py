"""From a request to a job: translated, planned, and accepted, or refused with nothing kept."""

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from sglang_core import ApiError, ConfigError, ConflictError, ExecutionPlan, Job, MediaKind, RequestError

from .inputs import StoredInputs, store_inputs
from .model_names import check_model
from .wording import FIELD_NAMES, said_to_clients

if TYPE_CHECKING:
    from starlette.requests import Request

    from sglang_core import Server

    from .fields import ImageInput
    from .requests import SamplingFields

_PREFIXES: Mapping[MediaKind, str] = {"image": "img", "video": "video"}
#: Fields that are settings of planning under the same name.
_SETTINGS = (
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "num_frames",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
    "strength",
    "diffusers_kwargs",
    "lora",
    "output_quality",
    "output_compression",
    "x264_preset",
)
_MAX_KEY_LENGTH = 200
#: Settings that are the server's own affair: names of its files.
PRIVATE_SETTINGS = frozenset({"image_path", "mask_path", "output_file_name"})


@frozen(kw_only=True)
class Submission:
    """What makes a job of a request: the operation, settings by name, and what the API keeps for its answers."""

    operation: str
    kind: MediaKind
    settings: Mapping[str, Any]
    api: Mapping[str, Any]
    extension: str
    priority: int = 0
    webhook_url: str | None = None


def new_job_id(kind: MediaKind) -> str:
    """Return a new id that nobody can guess."""
    return f"{_PREFIXES[kind]}_{uuid.uuid4().hex}"


def require_kind(server: "Server", kind: MediaKind, instead: str) -> None:
    """Refuse a request for what the server's model does not make.

    :raises ApiError: 400.
    """
    if server.plan.kind != kind:
        made = {"image": "images", "video": "clips"}[server.plan.kind]
        message = f"the model of this server makes {made}: use {instead}"
        raise ApiError(400, message, param="model", code="unsupported_model")


def settings_of(server: "Server", fields: "SamplingFields") -> dict[str, Any]:
    """Return what a request says as settings of planning, without what it leaves to the model.

    :raises ApiError: if two fields disagree.
    """
    given = {name: getattr(fields, name, None) for name in _SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    if fields.seed:
        settings["seed"] = list(fields.seed)
    if fields.n is not None:
        settings["num_outputs_per_prompt"] = fields.n
    if fields.previews:
        settings["num_previews"] = fields.previews
    if fields.size is not None and fields.size != "auto":
        for name, side in zip(("width", "height"), map(int, fields.size.lower().split("x")), strict=True):
            if settings.setdefault(name, side) != side:
                message = f"'size' is {fields.size} and '{name}' is {settings[name]}: give one of the two"
                raise ApiError(400, message, param=name, code="invalid_value")
    return settings


async def accept(
    server: "Server",
    request: "Request",
    submission: Submission,
    images: "Sequence[ImageInput]" = (),
    mask: "ImageInput | None" = None,
) -> tuple[Job, bool]:
    """Return the job of a request, and whether it is new: a repeated idempotency key gives the job of before.

    :param images: the images that it starts from.
    :param mask: that of the first.
    :raises SglangError: if it can not be served; then nothing is kept.
    """
    check_model(server, submission.api.get("model"))
    job_id = new_job_id(submission.kind)
    stored = await store_inputs(images, server.input_folder, job_id, mask)
    return await accept_stored(server, request, submission, stored, job_id)


async def accept_stored(
    server: "Server", request: "Request", submission: Submission, stored: StoredInputs, job_id: str
) -> tuple[Job, bool]:
    """Accept a request whose images are stored already; they are removed again if it is refused."""
    kept: Job | None = None
    try:
        settings = {**submission.settings, "output_file_name": f"{job_id}.{submission.extension}", **stored.settings}
        # The headers of images are read while planning: that may take a moment.
        plan = await asyncio.to_thread(_planned, server, settings) if stored.names else _planned(server, settings)
        key = server.api_key_of(request)
        idempotency_key = _idempotency_key(request)
        job = Job(
            id=job_id,
            kind=submission.kind,
            operation=submission.operation,
            created_at=time.time(),
            settings=settings,
            api={**submission.api, **_facts(plan)},
            owner=None if key is None else key.name,
            priority=submission.priority + (0 if key is None else key.priority),
            idempotency_key=idempotency_key,
            request_digest=None if idempotency_key is None else _digest(submission, stored),
            webhook_url=submission.webhook_url,
            input_files=stored.names,
        )
        kept = await server.jobs.submit(job, plan=plan)
    except ConflictError as error:
        message = "the Idempotency-Key was used before for another request; use a new one"
        headers = {"x-should-retry": "false"}  # clients repeat a 409 otherwise
        code = "idempotency_key_reused"
        raise ApiError(409, message, param="Idempotency-Key", code=code, headers=headers) from error
    finally:
        if stored.names and (kept is None or kept.id != job_id):
            await asyncio.to_thread(stored.remove)
    return kept, kept.id == job_id


def _planned(server: "Server", settings: Mapping[str, Any]) -> ExecutionPlan:
    """Return the plan of a request.

    :raises ApiError: 400 if there is none, in the words of the API instead of those of the command line.
    """
    try:
        return server.replan(settings)
    except (ConfigError, RequestError) as error:
        message = said_to_clients(error.problem, error.remedy)
        given = {FIELD_NAMES.get(name, name) for name in settings}
        places = [(match.start(), name) for name in given if (match := re.search(rf"\b{name}\b", message))]
        raise ApiError(400, message, param=min(places)[1] if places else None, code="invalid_value") from error


def _facts(plan: ExecutionPlan) -> dict[str, Any]:
    """Return what the plan says about the outputs before they exist."""
    first = plan.requests[0]
    facts = {"num_outputs": len(plan.requests), "width": first.width, "height": first.height}
    if plan.kind == "video":
        facts |= {"num_frames": first.num_frames, "fps": first.fps}
    facts["num_inference_steps"] = first.num_inference_steps
    return facts


def _digest(submission: Submission, stored: StoredInputs) -> str:
    """Return what tells two requests apart."""
    values: list[Any] = [submission.operation, dict(submission.settings), dict(submission.api), submission.extension]
    values += [submission.priority, submission.webhook_url, stored.digest, stored.has_mask]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _idempotency_key(request: "Request") -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _MAX_KEY_LENGTH and key.isprintable() and key.isascii()):
        message = f"the header Idempotency-Key takes 1 to {_MAX_KEY_LENGTH} printable ASCII characters"
        raise ApiError(400, message, param="Idempotency-Key", code="invalid_value")
    return key


def shown_settings(job: Job) -> dict[str, Any]:
    """Return the settings of a job as fields of a request that would ask for the same, but for images."""
    names = {**FIELD_NAMES, "num_previews": "previews"}
    shown = {names.get(name, name): value for name, value in job.settings.items() if name not in PRIVATE_SETTINGS}
    return {**shown, "output_format": job.api["output_format"]} if "output_format" in job.api else shown
