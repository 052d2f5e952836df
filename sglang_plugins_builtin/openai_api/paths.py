"""What the OpenAPI document says about the routes of this plugin."""

from typing import Any

from .schemas import reference

Item = dict[str, Any]

_ERROR_TEXTS = {
    "400": "The request is wrong; `param` names the field.",
    "401": "The server needs an API key.",
    "403": "The API key may not do this.",
    "404": "There is no such thing.",
    "409": "It does not go together with the state of things.",
    "413": "The body is too large.",
    "415": "A body of another type is expected.",
    "429": "Too many requests; the header `Retry-After` says when to come back.",
    "503": "The model is not ready; the header `Retry-After` says when to come back.",
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Up to 200 printable ASCII characters: a request that is repeated with its key gives the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"},
}


def all_paths() -> dict[str, Item]:
    """Return the paths of every group of routes."""
    return {**image_paths(), **video_paths(), **model_paths(), **lora_paths()}


def image_paths() -> dict[str, Item]:
    """Return the paths of images."""
    streamed = {"text/event-stream": {"schema": reference("ImageStreamEvent")}}
    answers = {
        "200": _answer("The images, or the events of a stream.", "Images", streamed),
        "202": _answer("The job of a request that runs in the background.", "ImageJob"),
        "504": _error("The time given to the job is over."),
        "500": _error("The job failed."),
    }
    return {
        "/v1/images/generations": {
            "post": _operation(
                "createImage", "Make images of a prompt.", "Images", body=("ImageGenerationRequest", None),
                answers=answers, parameters=[_IDEMPOTENCY],
            )
        },
        "/v1/images/edits": {
            "post": _operation(
                "editImage", "Make images of a prompt and of images.", "Images",
                body=("ImageEditRequest", "ImageEditForm"), answers=answers, parameters=[_IDEMPOTENCY],
            )
        },
        **_job_paths("images", "Images", "ImageJob", _image_content()),
    }  # fmt: skip


def video_paths() -> dict[str, Item]:
    """Return the paths of videos."""
    answers = {"200": _answer("The job. The header `openai-poll-after-ms` says when to ask again.", "Video")}
    paths = {
        "/v1/videos/{job_id}/remix": {
            "post": _operation(
                "remixVideo", "Make a clip with all settings of another and a new prompt.", "Videos",
                body=("RemixRequest", "RemixRequest"), answers=answers, parameters=[_job_id(), _IDEMPOTENCY],
            )
        },
        **_job_paths("videos", "Videos", "Video", _video_content()),
    }  # fmt: skip
    paths["/v1/videos"]["post"] = _operation(
        "createVideo", "Accept a job that makes a clip.", "Videos", body=("VideoRequest", "VideoForm"),
        answers=answers, parameters=[_IDEMPOTENCY],
    )  # fmt: skip
    return paths


def _job_paths(noun: str, tag: str, record: str, content: Item) -> dict[str, Item]:
    one = noun[:-1].capitalize()
    job = {"200": _answer("The job.", record)}
    events = {"text/event-stream": {"schema": reference(f"{record}Event")}}
    return {
        f"/v1/{noun}": {
            "get": _operation(
                f"list{one}s", f"List the jobs of {noun}.", tag, parameters=_paging(),
                answers={"200": _answer("A page of jobs.", f"{record}List")},
            )
        },
        f"/v1/{noun}/{{job_id}}": {
            "get": _operation(f"retrieve{one}", "Return a job.", tag, parameters=[_job_id()], answers=job),
            "delete": _operation(
                f"delete{one}", "Delete a job and its files; one that runs is cancelled first.", tag,
                parameters=[_job_id()], answers={"200": _answer("It is gone.", "Deleted")},
            ),
        },
        f"/v1/{noun}/{{job_id}}/cancel": {
            "post": _operation(f"cancel{one}", "Cancel a job.", tag, parameters=[_job_id()], answers=job)
        },
        f"/v1/{noun}/{{job_id}}/events": {
            "get": _operation(
                f"follow{one}", "Follow a job: place in the queue, stage, step, previews, and how it ends.", tag,
                parameters=[_job_id()],
                answers={"200": {"description": "Server-sent events.", "content": events}},
            )
        },
        f"/v1/{noun}/{{job_id}}/content": {"get": content},
    }  # fmt: skip


def _image_content() -> Item:
    variant = _query("variant", "Number of the image, from 0.", {"type": "string", "default": "0"})
    types = ("image/png", "image/jpeg", "image/webp")
    return _content("downloadImage", "Return the file of an image.", "Images", [_job_id(), variant], types)


def _video_content() -> Item:
    variant = _query(
        "variant", "The clip, its middle frame (WebP), or a grid of frames (JPEG).",
        {"enum": ["video", "thumbnail", "spritesheet"], "default": "video"},
    )  # fmt: skip
    index = _query("index", "Number of the clip, from 0.", {"type": "string", "default": "0"})
    types = ("video/mp4", "image/webp", "image/jpeg")
    return _content("downloadVideo", "Return a clip or a picture of it.", "Videos", [_job_id(), variant, index], types)


def _content(name: str, summary: str, tag: str, parameters: list[Item], types: tuple[str, ...]) -> Item:
    files = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in types}
    answers = {
        "200": {"description": "The file.", "content": files},
        "206": {"description": "The part that the header `Range` asks for.", "content": files},
        "304": {"description": "The client has the file already."},
        "307": {"description": "Where the storage has the file."},
        "416": {"description": "The file has no such part."},
        "500": _error("The picture can not be made."),
        "501": _error("The server has no decoder for clips."),
        "502": _error("The storage does not give the file now."),
    }
    return _operation(name, summary, tag, parameters=parameters, answers=answers)


def model_paths() -> dict[str, Item]:
    """Return the paths of models."""
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/models": {
            "get": _operation(
                "listModels", "List the names of the model.", "Models",
                answers={"200": _answer("The models.", "ModelList")},
            )
        },
        "/v1/models/{model}": {
            "get": _operation(
                "retrieveModel", "Return a model.", "Models", parameters=[name],
                answers={"200": _answer("The model.", "Model")},
            )
        },
    }  # fmt: skip


def lora_paths() -> dict[str, Item]:
    """Return the paths of adapters."""
    what = {
        "set_lora": ("SetLoraRequest", "Load and apply adapters"),
        "merge_lora_weights": ("MergeLoraRequest", "Merge the active adapters into the weights"),
        "unmerge_lora_weights": ("UnmergeLoraRequest", "Take merged adapters out of the weights"),
    }
    done = {"200": _answer("It is done; requests that start from now on run with it.", "LoraChange")}
    paths: dict[str, Item] = {
        f"/v1/{name}": {
            "post": _operation(name, f"{summary} (scope `admin`).", "LoRA", body=(body, None), answers=done)
        }
        for name, (body, summary) in what.items()
    }
    answers = {"200": _answer("The adapters.", "Loras")}
    paths["/v1/list_loras"] = {
        "get": _operation("list_loras", "List adapters (scope `admin`).", "LoRA", answers=answers)
    }
    return paths


def _operation(
    name: str,
    summary: str,
    tag: str,
    *,
    body: tuple[str, str | None] | None = None,
    answers: Item | None = None,
    parameters: list[Item] | None = None,
) -> Item:
    errors = {status: _error(text) for status, text in _ERROR_TEXTS.items()}
    operation: Item = {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "responses": {**(answers or {}), **errors},
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        content = {"application/json": {"schema": reference(body[0])}}
        if body[1] is not None:
            content["multipart/form-data"] = {"schema": reference(body[1])}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _answer(description: str, name: str, more: Item | None = None) -> Item:
    content = {"application/json": {"schema": reference(name)}, **(more or {})}
    return {"description": description, "content": content}


def _error(description: str) -> Item:
    return _answer(description, "Error")


def _job_id() -> Item:
    return {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, description: str, schema: Item) -> Item:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _paging() -> list[Item]:
    return [
        _query("after", "Id of the last job of the page before.", {"type": "string"}),
        _query("limit", "Jobs of a page.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        _query("order", "By time of creation.", {"enum": ["asc", "desc"], "default": "desc"}),
    ]
