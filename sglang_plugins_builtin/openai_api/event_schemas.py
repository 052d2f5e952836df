"""JSON Schemas of server-sent events: each event as its name and its data, and the JSON that the data is."""

from collections.abc import Mapping

from .schemas import ANSWERS, INTEGER, RECORD, TEXT, Schema, maybe, object_schema, reference

_IMAGE: dict[str, Schema] = {
    "created_at": INTEGER,
    "size": TEXT,
    "quality": TEXT,
    "background": TEXT,
    "id": TEXT,
    "b64_json": TEXT,
}
_PREVIEW = object_schema({"media_type": {"const": "image/png"}, "b64_json": TEXT})
_PARTIAL = ["image_generation.partial_image", "image_edit.partial_image"]
_COMPLETED = ["image_generation.completed", "image_edit.completed"]
_JOB_EVENTS = ["queued", "started", "progress", "preview", "finished"]


def _event(names: list[str], data: str) -> Schema:
    """Return the schema of events as a reader of server-sent events has them."""
    content = {"type": "string", "contentMediaType": "application/json", "contentSchema": reference(data)}
    return {
        **object_schema({"event": {"enum": names}, "data": content}),
        "description": "One event of the stream. Comments, which clients skip, keep a quiet connection alive.",
    }


def _job_data(record: str) -> Schema:
    schema = object_schema(
        {
            "type": {"enum": _JOB_EVENTS},
            "id": TEXT,
            "status": RECORD["status"],
            "state": RECORD["state"],
            "progress": RECORD["progress"],
            "queue_position": RECORD["queue_position"],
            "wait_s": RECORD["wait_s"],
            "stage": maybe("string"),
            "step": maybe("integer"),
            "total_steps": maybe("integer"),
        }
    )
    more = {"preview": _PREVIEW, "record": {**reference(record), "description": "Of a job that is over."}}
    return {**schema, "properties": {**schema["properties"], **more}}


#: The schemas of events by name.
EVENTS: Mapping[str, Schema] = {
    "ImageStreamEvent": _event([*_PARTIAL, *_COMPLETED, "error"], "ImageStreamData"),
    "ImageStreamData": {
        "anyOf": [
            object_schema(
                {
                    "type": {"enum": _PARTIAL},
                    **_IMAGE,
                    "output_format": {"const": "png"},
                    "partial_image_index": INTEGER,
                }
            ),
            object_schema(
                {
                    "type": {"enum": _COMPLETED},
                    **_IMAGE,
                    "output_format": {"enum": ["png", "jpeg", "webp"]},
                    "index": INTEGER,
                    "seed": INTEGER,
                    "usage": {"type": "object"},
                }
            ),
            object_schema({"type": {"const": "error"}, **ANSWERS["Error"]["properties"]}),
        ]
    },
    "ImageJobEvent": _event(_JOB_EVENTS, "ImageJobEventData"),
    "ImageJobEventData": _job_data("ImageJob"),
    "VideoEvent": _event(_JOB_EVENTS, "VideoEventData"),
    "VideoEventData": _job_data("Video"),
}
