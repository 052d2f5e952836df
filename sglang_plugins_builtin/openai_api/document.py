"""The OpenAPI 3.1 document of a server, with what every plugin says about its routes."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .event_schemas import EVENTS
from .fields import RequestFields
from .requests import (
    ImageEditRequest,
    ImageGenerationRequest,
    MergeLoraRequest,
    RemixRequest,
    SetLoraRequest,
    UnmergeLoraRequest,
    VideoRequest,
)
from .schemas import ANSWERS, Schema, request_schema

if TYPE_CHECKING:
    from sglang_core import Server

#: The requests and what they are the body of.
BODIES: Mapping[type[RequestFields], str] = {
    ImageGenerationRequest: "`POST /v1/images/generations`",
    ImageEditRequest: "`POST /v1/images/edits`, a multipart form or JSON",
    VideoRequest: "`POST /v1/videos`, a multipart form or JSON",
    RemixRequest: "`POST /v1/videos/{id}/remix`",
    SetLoraRequest: "`POST /v1/set_lora`",
    MergeLoraRequest: "`POST /v1/merge_lora_weights`",
    UnmergeLoraRequest: "`POST /v1/unmerge_lora_weights`",
}
_DESCRIPTION = (
    "OpenAI's API for images and videos. A field that this server does not act on is refused by name with status 400; "
    "fields marked as extensions go beyond OpenAI's."
)


def schemas() -> dict[str, Schema]:
    """Return all schemas by name."""
    bodies = {request.__name__: request_schema(request) for request in BODIES}
    forms = {
        "ImageEditForm": request_schema(ImageEditRequest, is_form=True),
        "VideoForm": request_schema(VideoRequest, is_form=True),
    }
    return {**bodies, **forms, **ANSWERS, **EVENTS}


def create_document(paths: Mapping[str, Mapping[str, Any]], *, has_keys: bool) -> dict[str, Any]:
    """Return the document for these paths."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "sglang",
            "version": _version(),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {"schemas": schemas()},
    }
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def server_document(server: "Server") -> dict[str, Any]:
    """Return the document of a server, of all its plugins."""
    paths: dict[str, Mapping[str, Any]] = {}
    for group in sorted(server.manager.routes, key=lambda group: group.order):
        for path, item in group.describe(server).items():
            paths[path] = {**paths.get(path, {}), **item}
    has_keys = bool(server.options.api_key or server.options.api_key_file)
    return create_document(paths, has_keys=has_keys)


def _version() -> str:
    try:
        return version("sglang-plugins")
    except PackageNotFoundError:  # running from a source tree
        return "0"
