"""Adapters from the hub: repos that are no pipelines, by the same client and cache as models."""

import pytest
from lora_adapters import demo_layers, demo_model, pair_shapes, write_header

from sglang_core import ConfigError, create_plugin_manager, plan_run
from sglang_core.testing import make_settings
from sglang_plugins_builtin.lora.adapters import Adapter
from sglang_plugins_builtin.lora.fitting import fit_adapter
from sglang_plugins_builtin.lora.sources import open_adapter

LAYERS = demo_layers("attn.to_q")


@pytest.fixture
def repo(hub, hub_cache, tmp_path):
    folder = tmp_path / "repo"
    write_header(folder / "pytorch_lora_weights.safetensors", pair_shapes(LAYERS, prefix="transformer."))
    (folder / "README.md").write_text("an adapter")
    hub.repos["artist/style-lora"] = folder
    return folder


def opened(**settings):
    manager = create_plugin_manager(only_built_ins=True)
    adapter = Adapter(nickname="style", path="artist/style-lora")
    file = open_adapter(manager, adapter, make_settings(manager, **settings))
    return file, fit_adapter(adapter, file, demo_model())


def test_adapter_is_planned_from_its_header_and_then_downloaded(repo, hub):
    file, fit = opened()
    before = {request.path for request in hub.requests if request.range is None and request.method == "GET"}
    path = file.fetch()

    assert {pair.layer for pair in fit["transformer"]} == set(LAYERS)
    assert len(file.source.revision) == 40
    assert path.read_bytes() == (repo / "pytorch_lora_weights.safetensors").read_bytes()
    assert not any(place.endswith("README.md") for place in before)


def test_downloaded_adapter_is_found_offline(repo, hub):
    opened()[0].fetch()
    seen = len(hub.requests)

    file, fit = opened(offline=True)

    assert fit["transformer"]
    assert file.fetch().is_file()
    assert len(hub.requests) == seen


def test_repo_that_is_not_there_is_one_sentence(hub, hub_cache):
    manager = create_plugin_manager(only_built_ins=True)
    settings = {"model_path": "demo/shapes-image", "device": "cpu", "prompt": "x", "lora_path": "artist/nothing"}

    for more in ({}, {"offline": True}):
        with pytest.raises(ConfigError, match=r"--lora-path artist/nothing: .*artist/nothing") as caught:
            plan_run(manager, make_settings(manager, **settings, **more))
        assert caught.value.remedy
