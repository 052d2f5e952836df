from pathlib import Path

import pytest
from model_folders import write_json, write_pipeline

from sglang_core import ModelNotFoundError, ModelReference
from sglang_plugins_builtin.demo_models.resolver import DemoResolver, check_embedded_models


@pytest.fixture
def resolver(tmp_path: Path) -> DemoResolver:
    write_json(write_pipeline(tmp_path / "shapes-image") / "sglang.json", {"revision": "1", "width": 128})
    (tmp_path / "unfinished").mkdir()
    return DemoResolver(tmp_path)


def test_an_embedded_model_is_found_with_revision_and_values(resolver: DemoResolver) -> None:
    source = resolver.resolve(ModelReference(path="demo/shapes-image"))

    assert source is not None
    assert (source.reference, source.resolver, source.revision) == ("demo/shapes-image", "demo", "1")
    assert source.sampling_defaults() == {"width": 128}
    assert resolver.resolve(ModelReference(path="demo/shapes-image", revision="1")) is not None


def test_an_unknown_embedded_model_names_the_closest(resolver: DemoResolver) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolver.resolve(ModelReference(path="demo/shape-images"))

    assert caught.value.problem == "there is no embedded model demo/shape-images (there are: demo/shapes-image)"
    assert caught.value.remedy == "use demo/shapes-image"


@pytest.mark.parametrize("path", ["demo/../shapes-image", "demo/", "demo/unfinished", "demo//etc"])
def test_names_lead_nowhere_else(resolver: DemoResolver, path: str) -> None:
    with pytest.raises(ModelNotFoundError):
        resolver.resolve(ModelReference(path=path))


def test_another_revision_is_refused(resolver: DemoResolver) -> None:
    with pytest.raises(ModelNotFoundError, match="comes in revision 1 only, not 2"):
        resolver.resolve(ModelReference(path="demo/shapes-image", revision="2"))


def test_other_references_are_declined(resolver: DemoResolver) -> None:
    assert resolver.resolve(ModelReference(path="Qwen/Qwen-Image")) is None
    assert "demo/shapes-image" in (resolver.hint(ModelReference(path="x")) or "")


def test_an_installation_without_models_says_so(tmp_path: Path) -> None:
    resolver = DemoResolver(tmp_path / "nothing")

    with pytest.raises(ModelNotFoundError) as caught:
        resolver.resolve(ModelReference(path="demo/shapes-image"))

    assert "this installation has none" in caught.value.problem
    assert "pip install" in caught.value.remedy
    assert check_embedded_models(resolver).status == "problem"


def test_the_check_reads_every_embedded_model(resolver: DemoResolver, tmp_path: Path) -> None:
    assert check_embedded_models(resolver).status == "ok"

    (tmp_path / "shapes-image/vae/diffusion_pytorch_model.safetensors").write_bytes(b"short")

    assert check_embedded_models(resolver).status == "problem"
    assert "vae/diffusion_pytorch_model.safetensors" in check_embedded_models(resolver).message
