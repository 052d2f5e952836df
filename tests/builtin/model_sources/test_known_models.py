import pytest
from attrs import fields

from sglang_core import GenerationRequest
from sglang_plugins_builtin.model_sources.known_models import KNOWN_MODELS, known_sampling_values


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        pytest.param("Qwen/Qwen-Image", 50, id="hub id"),
        pytest.param("/models/Qwen-Image-Edit-2511", 40, id="longest name wins"),
        pytest.param("./my-z-image-turbo-v2/", 9, id="contained in a folder name, in any case"),
        pytest.param("/c/models--krea--Krea-2/snapshots/abc", 8, id="folder of the hub's cache"),
        pytest.param("nvidia/Qwen-Image-NVFP4", 50, id="derived repo"),
    ],
)
def test_known_models_are_recognised(path: str, steps: int) -> None:
    assert known_sampling_values(path)["num_inference_steps"] == steps


@pytest.mark.parametrize("path", ["acme/shapes", "/Qwen-Image/other", "", "/", "demo/shapes-image"])
def test_other_models_have_no_recommended_values(path: str) -> None:
    assert known_sampling_values(path) == {}


@pytest.mark.parametrize("name", sorted(KNOWN_MODELS))
def test_recommended_values_are_request_values(name: str) -> None:
    assert set(KNOWN_MODELS[name]) <= {field.name for field in fields(GenerationRequest)}
