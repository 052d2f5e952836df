"""The family on the native backend, without anything else that is installed."""

import json

import numpy as np
import pytest
import sglang_example_family
from sglang_example_family.__main__ import write_model

from sglang_core import Generator, ModelLoadError, RequestError
from sglang_core.testing import bare_manager
from sglang_plugins_builtin import attention, model_sources, native


@pytest.fixture
def manager():
    manager = bare_manager(host_options=True)
    for name, plugin in {"sources": model_sources, "attention": attention, "native": native}.items():
        manager.register(plugin, name)
    manager.register(sglang_example_family, "example_family")
    return manager


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "mosaic")
    return tmp_path / "mosaic"


@pytest.fixture
def paint(manager, model):
    """Return the picture of a request, (height, width, 3)."""

    def run(prompt="a quiet sea", precision="fp32", **settings):
        loaded_with = {"precision": precision, "device": "cpu", "backend": "sglang", "save_output": False}
        with Generator.from_pretrained(str(model), manager=manager, **loaded_with) as generator:
            (output,) = generator.generate(prompt, return_frames=True, **settings).outputs
        return output.media.frames[0]

    return run


def test_it_paints_tiles(paint):
    picture = paint(width=64, height=40)

    assert picture.shape == (40, 64, 3)
    tiles = picture.reshape(5, 8, 8, 8, 3)  # rows, pixels, columns, pixels, colours
    assert (tiles == tiles[:, :1, :, :1]).all()
    assert len(np.unique(tiles[:, 0, :, 0].reshape(-1, 3), axis=0)) > 10


def test_prompt_and_seed_decide_on_the_picture(paint):
    first = paint(seed=1)

    assert (first == paint(seed=1)).all()
    assert (first != paint(seed=2)).any()
    assert (first != paint("a loud sea", seed=1)).any()


def test_half_precision_stays_close(paint):
    difference = paint().astype(int) - paint(precision="bf16")

    assert abs(difference).mean() < 8  # of 256 levels: bf16 keeps 8 bits


@pytest.mark.parametrize("settings", [{"width": 65}, {"guidance_scale": 4.0}], ids=["size", "guidance"])
def test_what_it_does_not_take_is_refused(paint, settings):
    with pytest.raises(RequestError, match=next(iter(settings))):
        paint(**settings)


def test_wrong_sizes_are_an_error_before_weights_are_read(manager, model):
    (model / "transformer" / "config.json").write_text(json.dumps({"num_heads": "two"}), encoding="utf-8")

    with pytest.raises(ModelLoadError, match="num_heads is no positive whole number: 'two'"):
        Generator.from_pretrained(str(model), manager=manager, backend="sglang")
