"""JSON Schemas (2020-12, as OpenAPI 3.1 takes them): of requests from their declarations, and of the answers."""

import re
from collections.abc import Mapping
from typing import Any

from .bodies import CONTAINERS
from .fields import ApiField, RequestFields, fields_of

Schema = dict[str, Any]
_TYPES = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "object": "object"}


def request_schema(request: type[RequestFields], *, is_form: bool = False) -> Schema:
    """Return the schema of a request's body.

    :param is_form: of its multipart form, in which images are files.
    """
    fields = fields_of(request)
    properties = {name: _field_schema(field, is_form=is_form) for name, field in fields.items()}
    for name, values in request.harmless.items():
        reason = request.unsupported[name]
        properties[name] = {"enum": [*values, None], "description": f"Only the values that ask for nothing: {reason}."}
    if hasattr(request, "prompt") or "prompt" in fields:
        for name in CONTAINERS:
            properties[name] = {
                "type": ["object", "null"],
                "description": "Extension: an object whose entries are read as if they stood beside it.",
                "additionalProperties": False,
            }
    return {
        "type": "object",
        "description": (request.__doc__ or "").strip(),
        "properties": properties,
        "required": [name for name, field in fields.items() if field.is_required],
        "additionalProperties": False,
    }


def _field_schema(field: ApiField, *, is_form: bool) -> Schema:
    one = _image_schema(is_form=is_form) if field.kind == "image" else _value_schema(field)
    if field.is_many:
        items = {"type": "array", "items": one, "maxItems": field.details.max_items}
        one = {"anyOf": [one, items]}
    if not field.is_required:
        one = _nullable(one)
    schema = {**one, "description": field.details.doc}
    if field.details.example is not None:
        schema["examples"] = [field.details.example]
    return schema


def _value_schema(field: ApiField) -> Schema:
    details = field.details
    if field.kind == "choice":
        return {"type": "string", "enum": list(field.choices)}
    limits = {
        "minimum": details.minimum,
        "maximum": details.maximum,
        "exclusiveMinimum": details.exclusive_minimum,
        "maxLength": details.max_length,
        "pattern": None if details.pattern is None else f"^{_portable(details.pattern)}$",
    }
    schema: Schema = {"type": _TYPES[field.kind], **{key: value for key, value in limits.items() if value is not None}}
    if field.details.takes_text:
        return {"anyOf": [schema, {"type": "string", "pattern": r"^[0-9]{1,4}(\.[0-9]{1,6})?$"}]}
    return schema


def _portable(pattern: str) -> str:
    """Return a pattern in the dialect of JSON Schema, which has no group flags."""
    return re.sub(r"\(\?i:", "(", pattern)


def _image_schema(*, is_form: bool) -> Schema:
    url: Schema = {"type": "string", "pattern": "^([hH][tT][tT][pP][sS]?://|[dD][aA][tT][aA]:).+"}
    reference = {"type": "object", "properties": {"image_url": url}, "required": ["image_url"]}
    choices: list[Schema] = [url, {**reference, "additionalProperties": False}]
    if is_form:
        choices.insert(0, {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"})
    return {"anyOf": choices}


def _nullable(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    return {**nullable, "enum": [*schema["enum"], None]} if "enum" in schema else nullable


def object_schema(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has these properties, and perhaps others."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def maybe(kind: str) -> Schema:
    """Return the schema of a value that may be null."""
    return {"type": [kind, "null"]}


def reference(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
_OUTPUT = object_schema(
    {
        "index": INTEGER,
        "url": TEXT,
        "media_type": TEXT,
        "width": INTEGER,
        "height": INTEGER,
        "num_frames": INTEGER,
        "fps": maybe("number"),
        "num_bytes": INTEGER,
        "seed": INTEGER,
        "is_uploaded": {"type": "boolean"},
        "upload_error": maybe("string"),
    }
)
RECORD: dict[str, Schema] = {
    "id": TEXT,
    "status": {"enum": ["queued", "in_progress", "completed", "failed"], "description": "As OpenAI's clients know it."},
    "state": {
        "enum": ["queued", "in_progress", "cancelling", "completed", "failed", "cancelled"],
        "description": "The exact state: a cancelled job has the status `failed` and the error code `cancelled`.",
    },
    "progress": {"type": "integer", "minimum": 0, "maximum": 100},
    "stage": maybe("string"),
    "created_at": INTEGER,
    "started_at": maybe("integer"),
    "completed_at": maybe("integer"),
    "expires_at": maybe("integer"),
    "model": TEXT,
    "prompt": maybe("string"),
    "size": {"type": "string", "description": "`WIDTHxHEIGHT` of the output, or `auto` before it is known."},
    "error": {"anyOf": [object_schema({"code": TEXT, "message": TEXT}), {"type": "null"}]},
    "num_outputs": maybe("integer"),
    "url": maybe("string"),
    "urls": {"type": ["array", "null"], "items": TEXT},
    "outputs": {"type": "array", "items": _OUTPUT},
    "settings": {"type": "object", "description": "What was asked for; another request can be made of it."},
    "queue_position": {"type": ["integer", "null"], "description": "0: the next to run."},
    "wait_s": {"type": ["number", "null"], "description": "Estimated seconds until it runs."},
    "inference_time_s": maybe("number"),
    "timings_s": {"type": "object", "additionalProperties": {"type": "number"}},
}
_MODEL = object_schema(
    {
        "id": TEXT,
        "object": {"const": "model"},
        "created": INTEGER,
        "owned_by": TEXT,
        "output_kind": {"enum": ["image", "video"]},
        "takes_images": {"type": "boolean"},
        "takes_mask": {"type": "boolean"},
        "needs_image": {"type": "boolean"},
        "max_images": maybe("integer"),
        "defaults": {"type": "object"},
    }
)


_ACTIVE_LORA = object_schema(
    {
        "nickname": TEXT,
        "nicknames": {"type": "array", "items": TEXT},
        "path": TEXT,
        "merged": {"const": True},
        "mode": {"const": "merged"},
        "strength": {"type": "number"},
        "strengths": {"type": "array", "items": {"type": "number"}},
    }
)


def _page_of(name: str) -> Schema:
    return object_schema(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": reference(name)},
            "first_id": maybe("string"),
            "last_id": maybe("string"),
            "has_more": {"type": "boolean"},
        }
    )


#: The schemas of answers by name.
ANSWERS: Mapping[str, Schema] = {
    "Error": object_schema(
        {"error": object_schema({"message": TEXT, "type": TEXT, "param": maybe("string"), "code": maybe("string")})}
    ),
    "Video": object_schema(
        {
            **RECORD,
            "object": {"const": "video"},
            "seconds": {"type": "string", "description": "Length in seconds."},
            "num_frames": maybe("integer"),
            "fps": maybe("number"),
            "remixed_from_video_id": maybe("string"),
        }
    ),
    "VideoList": _page_of("Video"),
    "ImageJob": object_schema({**RECORD, "object": {"const": "image"}, "operation": TEXT}),
    "ImageJobList": _page_of("ImageJob"),
    "Images": object_schema(
        {
            "created": INTEGER,
            "data": {
                "type": "array",
                "items": object_schema(
                    {
                        "url": maybe("string"),
                        "b64_json": maybe("string"),
                        "revised_prompt": maybe("string"),
                        "seed": INTEGER,
                    }
                ),
            },
            "output_format": {"enum": ["png", "jpeg", "webp"]},
            "size": TEXT,
            "background": TEXT,
            "id": TEXT,
            "inference_time_s": maybe("number"),
        }
    ),
    "Deleted": object_schema({"id": TEXT, "object": TEXT, "deleted": {"const": True}}),
    "Model": _MODEL,
    "ModelList": object_schema({"object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")}}),
    "LoraChange": object_schema({"status": {"const": "ok"}, "message": TEXT}),
    "Loras": object_schema(
        {
            "loaded_adapters": {"type": "array", "items": object_schema({"nickname": TEXT, "path": TEXT})},
            "active": {
                "type": "object",
                "description": "The adapters in the weights, by component.",
                "additionalProperties": {"type": "array", "items": _ACTIVE_LORA},
            },
        }
    ),
}
