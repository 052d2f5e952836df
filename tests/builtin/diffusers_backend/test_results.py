"""From what pipelines return to frames and sound."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sglang_core import ExecutionPlan, GenerationRequest, RequestError


@pytest.fixture
def convert(models: Callable[[str], Path], make_plan: Callable[..., ExecutionPlan]) -> Callable[..., Any]:
    """Return the conversion for an image or a video model."""
    from sglang_plugins_builtin.diffusers_backend.results import to_media

    def to(result: Any, model: str = "qwen", **components: Any) -> Any:
        plan = make_plan(models(model))
        pipeline = SimpleNamespace(components=components)
        return to_media(result, pipeline, plan, GenerationRequest(prompt="x", fps=12 if model == "wan" else None))

    return to


def test_values_are_rounded_as_diffusers_rounds(convert: Callable[..., Any]) -> None:
    from diffusers.utils import numpy_to_pil

    pictures = np.random.default_rng(0).random((1, 6, 4, 3), dtype=np.float32)

    media = convert(SimpleNamespace(images=pictures))

    assert (media.frames[0] == np.asarray(numpy_to_pil(pictures)[0])).all()


def shapes() -> list[Any]:
    import torch
    from PIL import Image

    picture = np.full((6, 4, 3), 0.5, np.float32)
    image = Image.new("RGB", (4, 6), (128, 128, 128))
    return [
        pytest.param("qwen", SimpleNamespace(images=picture[None]), (1, 6, 4, 3), id="batch"),
        pytest.param("qwen", (picture[None],), (1, 6, 4, 3), id="tuple"),
        pytest.param("qwen", SimpleNamespace(images=[image]), (1, 6, 4, 3), id="pil"),
        pytest.param("qwen", SimpleNamespace(images=[image.convert("RGBA")]), (1, 6, 4, 4), id="rgba"),
        pytest.param("qwen", SimpleNamespace(image=[image.convert("L")]), (1, 6, 4, 3), id="grey"),
        pytest.param("qwen", SimpleNamespace(images=torch.full((1, 3, 6, 4), 0.5)), (1, 6, 4, 3), id="tensor"),
        pytest.param("qwen", SimpleNamespace(images=[[image, image]]), (2, 6, 4, 3), id="layers"),
        pytest.param("wan", SimpleNamespace(frames=np.stack([picture] * 5)[None]), (5, 6, 4, 3), id="clip"),
        pytest.param("wan", SimpleNamespace(frames=[[image] * 5]), (5, 6, 4, 3), id="pil-clip"),
        pytest.param("wan", SimpleNamespace(frames=torch.full((1, 5, 3, 6, 4), 0.5)), (5, 6, 4, 3), id="tensor-clip"),
    ]


@pytest.mark.parametrize(("model", "result", "shape"), shapes())
def test_every_shape_becomes_uint8_frames(
    model: str, result: Any, shape: tuple[int, ...], convert: Callable[..., Any]
) -> None:
    media = convert(result, model)

    assert media.frames.shape == shape
    assert media.frames.dtype == np.uint8
    assert media.frames[..., :3].min() == media.frames[..., :3].max() == 128


def test_sound_has_the_rate_of_the_vocoder(convert: Callable[..., Any]) -> None:
    import torch

    frames = np.zeros((1, 5, 6, 4, 3), np.float32)
    vocoder = SimpleNamespace(config={"output_sampling_rate": 24000})

    media = convert(SimpleNamespace(frames=frames, audio=torch.full((1, 2, 100), 3.0)), "wan", vocoder=vocoder)

    assert (media.audio.shape, media.audio.max(), media.sample_rate_hz, media.fps) == ((2, 100), 1.0, 24000, 12.0)


def test_sound_without_a_rate_is_lost_with_a_warning(
    convert: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    frames = np.zeros((1, 5, 6, 4, 3), np.float32)

    media = convert(SimpleNamespace(frames=frames, audio=np.zeros((2, 100))), "wan")

    assert media.audio is None
    assert "the sound is lost" in caplog.text


def test_what_is_no_picture_is_refused(convert: Callable[..., Any]) -> None:
    with pytest.raises(RequestError, match="returned str, not pictures"):
        convert(SimpleNamespace(images="nothing"))
