import copy
import json
import re

import httpx
import jsonschema
import pytest
import schemathesis
from api_server import live_api
from openapi_checks import check_operation
from schemathesis.core.failures import FailureGroup

from sglang_core import JobError
from sglang_plugins_builtin.openai_api.document import create_document
from sglang_plugins_builtin.openai_api.fields import fields_of
from sglang_plugins_builtin.openai_api.paths import image_paths, lora_paths, model_paths, video_paths
from sglang_plugins_builtin.openai_api.requests import ImageEditRequest, ImageGenerationRequest, VideoRequest

#: Of each operation, so that each is tried at least in a good and in a bad way; hundreds in ``tests/hostile``.
EXAMPLES = 4


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with live_api(tmp_path_factory.mktemp("document"), takes_image=True) as live:
        yield live


@pytest.fixture(scope="module")
def document(api):
    return httpx.get(f"{api.url}/openapi.json").json()


def test_document_tells_every_declared_field_with_its_meaning(document):
    for request in (ImageGenerationRequest, ImageEditRequest, VideoRequest):
        properties = document["components"]["schemas"][request.__name__]["properties"]
        for name, field in fields_of(request).items():
            assert properties[name]["description"] == field.details.doc
            assert re.fullmatch(r"[A-Z`].*[.]", field.details.doc), name


def test_every_route_is_in_the_document(api, document):
    described = {
        (path, method.upper()) for path, item in document["paths"].items() for method in item if path.startswith("/v1")
    }
    served = set()
    for group in api.server.manager.routes:
        for route in group.routes(api.server):
            served |= {(route.path.replace(":path", ""), method) for method in route.methods - {"HEAD"}}

    assert {(path, method) for path, method in served if path.startswith("/v1")} == described


def test_operations_have_names_of_their_own():
    paths = {**image_paths(), **video_paths(), **model_paths(), **lora_paths()}
    names = [operation["operationId"] for item in paths.values() for operation in item.values()]

    assert len(set(names)) == len(names)
    schemas = create_document(paths, has_keys=False)["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def events_of(answer):
    """Return the events of an answer as a reader of server-sent events has them."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


def check_events(document, path, method, events):
    """Hold events and the JSON in them against what the document says of a path."""
    content = document["paths"][path][method]["responses"]["200"]["content"]
    schema = content["text/event-stream"]["schema"] | {"components": document["components"]}
    of_event = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    of_data = of_event["properties"]["data"]["contentSchema"] | {"components": document["components"]}
    for event in events:
        jsonschema.Draft202012Validator(schema).validate(event)
        data = json.loads(event["data"])
        jsonschema.Draft202012Validator(of_data).validate(data)
        assert data["type"] == event["event"]


@pytest.mark.parametrize("failure", [None, JobError(code="failed", message="the run failed")], ids=["made", "failed"])
def test_streamed_images_are_what_the_document_says(api, document, monkeypatch, failure):
    monkeypatch.setattr(api.jobs, "failure", failure)
    body = {"prompt": "a red circle", "stream": True, "partial_images": 1}
    events = events_of(httpx.post(f"{api.url}/v1/images/generations", json=body))

    last = "image_generation.completed" if failure is None else "error"
    assert [event["event"] for event in events] == ["image_generation.partial_image", last]
    check_events(document, "/v1/images/generations", "post", events)


@pytest.mark.parametrize(("kind", "noun"), [("image", "images"), ("video", "videos")])
def test_events_of_jobs_are_what_the_document_says(tmp_path, kind, noun):
    path = "/v1/images/generations" if kind == "image" else "/v1/videos"
    body = {"prompt": "a red circle", **({"run_in_background": True} if kind == "image" else {})}
    with live_api(tmp_path, kind) as api:
        document = httpx.get(f"{api.url}/openapi.json").json()
        job = httpx.post(f"{api.url}{path}", json=body).json()
        events = events_of(httpx.get(f"{api.url}/v1/{noun}/{job['id']}/events", timeout=60))

    assert events[-1]["event"] == "finished"
    assert json.loads(events[-1]["data"])["record"]["state"] == "completed"
    check_events(document, f"/v1/{noun}/{{job_id}}/events", "get", events)


def test_page_loads_nothing_from_elsewhere(api):
    page = httpx.get(f"{api.url}/docs")

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page.text)
    assert "<script" not in page.text
    assert "num_inference_steps" in page.text


def test_server_does_what_its_document_says(api, document):
    schema = schemathesis.openapi.from_dict(document)
    names = [operation.ok().label for operation in schema.get_all_operations()]

    for operation in schema.get_all_operations():
        check_operation(operation.ok(), api.url, EXAMPLES)

    assert "POST /v1/images/generations" in names


def test_answer_that_the_document_does_not_tell_of_is_found(api, document):
    wrong = copy.deepcopy(document)
    wrong["components"]["schemas"]["ModelList"]["required"].append("first_id")
    schema = schemathesis.openapi.from_dict(wrong)

    with pytest.raises(FailureGroup) as caught:
        check_operation(schema["/v1/models"]["GET"], api.url, EXAMPLES)

    assert '"first_id" is a required property' in str(caught.value.exceptions[0])
