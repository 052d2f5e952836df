import json

import httpx
import openai
import pytest
from api_server import live_api
from openai.types import Model


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with live_api(tmp_path_factory.mktemp("models"), served_model_name=("Org/tiny", "gpt-image-1")) as live:
        yield live


def test_every_name_of_the_model_is_listed(client):
    raw = client.models.with_raw_response.list()

    cards = [Model.model_validate(card, strict=True) for card in json.loads(raw.content)["data"]]
    assert [card.id for card in cards] == ["Org/tiny", "gpt-image-1"]
    assert [card.root for card in cards] == ["Org/tiny", "Org/tiny"]


def test_name_with_a_slash_is_retrieved(client):
    card = client.models.retrieve("Org/tiny")

    assert card.id == "Org/tiny"
    assert card.output_kind == "image"
    assert card.defaults["width"] == 64


def test_unknown_model_is_404_in_openai_s_shape(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("dall-e-3")

    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_list_of_adapters_is_empty(http):
    assert http.get("/v1/list_loras").json() == {"loaded_adapters": [], "active": {}}


BODIES = {
    "set_lora": {"lora_nickname": ["a", "b"], "lora_path": ["x/a", "x/b"], "strength": 0.5, "target": "all"},
    "merge_lora_weights": {"strength": 1},
    "unmerge_lora_weights": {},
}


@pytest.mark.parametrize("name", BODIES)
def test_adapters_are_refused_with_the_reason(http, name):
    answer = http.post(f"/v1/{name}", json=BODIES[name])

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "lora_not_supported"
    assert "this server loads no LoRA adapters" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("set_lora", {}, "the field 'lora_nickname' is missing"),
        ("set_lora", {"lora_nickname": 3}, "'lora_nickname' takes text, not 3"),
        ("set_lora", {"lora_nickname": "a", "lora_pth": "b"}, "did you mean 'lora_path'?"),
        ("merge_lora_weights", {"target": "vae"}, "'target' is 'vae', it takes one of all"),
        ("unmerge_lora_weights", {"strength": 1}, "unknown field 'strength'"),
    ],
)
def test_wrong_body_about_adapters_is_refused_by_name(http, name, body, message):
    answer = http.post(f"/v1/{name}", json=body)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_document_is_open_to_all_where_keys_are_needed(tmp_path):
    with live_api(tmp_path, api_key=("secret-key",)) as api:
        document = httpx.get(f"{api.url}/openapi.json")
        page = httpx.get(f"{api.url}/docs")
        models = httpx.get(f"{api.url}/v1/models")

    assert document.json()["security"] == [{"key": []}]
    assert page.status_code == 200
    assert models.status_code == 401
