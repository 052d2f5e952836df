"""Runs of a text-to-image model that start from an image, with and without a mask, against those of diffusers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_qwen_images import EMBEDDED, Native, distance

from sglang_core import RequestError, StageStarted, StepControl, StepDone
from sglang_plugins_builtin.native.causal_vae.model import CausalVae

pytestmark = pytest.mark.usefixtures("foreign_warnings")

STEPS = 4
CLASSES = {False: "QwenImageImg2ImgPipeline", True: "QwenImageInpaintPipeline"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return an image of 40 x 24 pixels and a mask of its right part, white on black with a soft edge."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.random.default_rng(3).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "image.png")
    mask = Image.new("L", (40, 24))
    ImageDraw.Draw(mask).rectangle((21, 0, 40, 24), fill=255)
    ImageDraw.Draw(mask).rectangle((17, 0, 20, 24), fill=140)
    mask.save(folder / "mask.png")
    return folder / "image.png", folder / "mask.png"


@pytest.fixture(scope="module")
def vanilla() -> Callable[..., Any]:
    """Call a pipeline of diffusers: ``vanilla(folder, class_name, dtype, output_type, **arguments)``."""
    import diffusers

    loaded: dict[Any, Any] = {}

    def call(folder: Path, class_name: str, dtype: torch.dtype, output_type: str, **arguments: Any) -> Any:
        key = folder, class_name, dtype
        if key not in loaded:
            pipeline_class = getattr(diffusers, class_name)
            loaded[key] = pipeline_class.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
            loaded[key].set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(42)
        made = loaded[key](**arguments, generator=generator, output_type=output_type).images
        return made if output_type == "latent" else np.asarray(made[0])

    return call


def arguments_of(
    pictures: tuple[Path, Path], *, masked: bool, strength: float, size: tuple[int, int] = (40, 24), scale: float = 4.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one request in the words of the host and in those of diffusers."""
    same = {
        "prompt": "a red circle", "width": size[0], "height": size[1], "num_inference_steps": STEPS,
        "strength": strength,
    }  # fmt: skip
    image, mask = pictures
    ours = {**same, "guidance_scale": scale, "image_path": (str(image),)}
    theirs = {**same, "true_cfg_scale": scale, "negative_prompt": " ", "image": Image.open(image).convert("RGB")}
    if masked:
        ours["mask_path"], theirs["mask_image"] = str(mask), Image.open(mask)
    return ours, theirs


@pytest.mark.parametrize(("strength", "scale"), [(0.25, 4.0), (0.6, 1.0), (0.7, 4.0), (1.0, 4.0)])
@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
def test_latents_equal_those_of_diffusers(tiny, native, vanilla, pictures, masked, strength, scale) -> None:
    ours, theirs = arguments_of(pictures, masked=masked, strength=strength, scale=scale)

    found = native.latents(**ours)

    # both compute in float32; what is left is the order of sums
    assert distance(found, vanilla(tiny, CLASSES[masked], torch.float32, "latent", **theirs)) < 1e-4


@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
def test_image_of_another_size_is_scaled_as_diffusers_scales(tiny, native, vanilla, pictures, masked) -> None:
    ours, theirs = arguments_of(pictures, masked=masked, strength=0.75, size=(32, 48))

    found = native.latents(**ours)

    assert distance(found, vanilla(tiny, CLASSES[masked], torch.float32, "latent", **theirs)) < 1e-4


@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
def test_trained_weights_give_the_pixels_of_diffusers(vanilla, pictures, masked) -> None:
    ours, theirs = arguments_of(pictures, masked=masked, strength=0.75, size=(64, 48))

    frame = Native(EMBEDDED).frames(**ours)

    expected = vanilla(EMBEDDED, CLASSES[masked], torch.float32, "pil", **theirs)
    assert np.abs(frame.astype(int) - expected.astype(int)).max() <= 1


def test_run_is_repeated_exactly_also_after_others(native, pictures) -> None:
    masked, _ = arguments_of(pictures, masked=True, strength=0.8)
    plain = {"prompt": "x", "width": 16, "height": 16, "num_inference_steps": 2}

    first, text = native.frames(**masked), native.frames(**plain)

    assert (native.frames(**masked) == first).all()
    assert (native.frames(**plain) == text).all()


def test_stages_and_steps_are_those_of_the_request(native, pictures) -> None:
    events: list[Any] = []
    masked, _ = arguments_of(pictures, masked=True, strength=0.5)

    native.frames(StepControl([events.append]), **masked)
    native.frames(StepControl([events.append]), prompt="x", width=16, height=16, num_inference_steps=2)

    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    steps = [(event.index, event.total) for event in events if isinstance(event, StepDone) and event.stage == "denoise"]
    record = ["record"]  # the stage of the test itself
    assert stages == [
        "encode", "encode images", "prepare", "denoise", *record, "decode",
        "encode", "prepare", "denoise", *record, "decode",
    ]  # fmt: skip
    assert steps == [(1, 2), (2, 2)] * 2  # half of four steps, then two of two


def test_encoder_is_read_when_the_first_image_comes(tiny, pictures, monkeypatch) -> None:
    made: list[dict[str, bool]] = []
    create = CausalVae.__init__

    def noted(self: CausalVae, config: Any, **parts: bool) -> None:
        made.append(parts)
        create(self, config, **parts)

    monkeypatch.setattr(CausalVae, "__init__", noted)
    native = Native(tiny)
    native.frames(prompt="x", width=16, height=16, num_inference_steps=2)
    assert [parts["with_encoder"] for parts in made] == [False]

    for _ in range(2):
        native.frames(**arguments_of(pictures, masked=False, strength=0.5)[0])

    assert [(parts["with_encoder"], parts["with_decoder"]) for parts in made] == [(False, True), (True, False)]


def test_result_has_the_shape_of_its_image(native, pictures) -> None:
    def size(**given: Any) -> tuple[int | None, int | None]:
        request = native.planned(image_path=(str(pictures[0]),), **given).plan.requests[0]
        return request.width, request.height

    assert size() == (40, 24)
    assert size(width=80) == (80, 48)
    assert size(height=40) == (64, 40)  # 66.7, on the grid of 8
    assert size(width=16, height=16) == (16, 16)


def test_several_images_are_refused(native, pictures) -> None:
    with pytest.raises(RequestError, match="starts from one image, not 2"):
        native.planned(image_path=(str(pictures[0]),) * 2)


def test_memory_of_a_start_counts_the_encoder(native, pictures) -> None:
    size = {"width": 40, "height": 24}

    text = native.planned(**size).plan.memory
    start = native.planned(**size, image_path=(str(pictures[0]),)).plan.memory

    assert start.weights_bytes > text.weights_bytes
    assert set(start.stage_peak_bytes) - set(text.stage_peak_bytes) == {"encode images"}
