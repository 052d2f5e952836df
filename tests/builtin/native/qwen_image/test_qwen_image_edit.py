"""Whole runs that edit images against the pipelines of diffusers, with random weights, in odd shapes.

Since transformers 5 the language model must be told which tokens are of images (``mm_token_type_ids``), or it places
them as if they were text; the pipelines of diffusers 0.42 do not tell it (its issue 14194). The models were trained
with the places that images have, so the vanilla text encoder is told here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_qwen_images import Native, Processor, distance, image_processor, parts, write

from sglang_core import Availability, ModelLoadError, RequestCancelledError, RequestError, StageStarted, StepControl
from sglang_core.planning import plan_run
from sglang_core.testing import make_settings
from sglang_plugins_builtin.diffusers_backend import processors
from sglang_plugins_builtin.native.engine import Residency
from sglang_plugins_builtin.native.qwen_image import edit_stages
from sglang_plugins_builtin.native.qwen_image.edit_stages import size_of_area
from sglang_plugins_builtin.native.qwen_image.vision_encoder import ImagePatches

pytestmark = pytest.mark.usefixtures("foreign_warnings")

EDIT, EDIT_PLUS = "QwenImageEditPipeline", "QwenImageEditPlusPipeline"
SMALL_AREA, SMALL_SEEN_AREA = 96 * 96, 64 * 64
PROMPTS = {"short": "red", "long": "a red circle above a blue square and " * 7}


@pytest.fixture
def small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images have thousands of pixels in place of a million, in both implementations: the rules stay."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus

    small = {1024 * 1024: SMALL_AREA, 384 * 384: SMALL_SEEN_AREA}
    choose, choose_plus = edit.calculate_dimensions, edit_plus.calculate_dimensions
    monkeypatch.setattr(edit, "calculate_dimensions", lambda area, ratio: choose(small[area], ratio))
    monkeypatch.setattr(edit_plus, "calculate_dimensions", lambda area, ratio: choose_plus(small[area], ratio))
    monkeypatch.setattr(edit_stages, "AREA", SMALL_AREA)
    monkeypatch.setattr(edit_stages, "SEEN_AREA", SMALL_SEEN_AREA)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Files of images in different shapes, with noise so that scaling matters."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for index, (width, height) in enumerate([(150, 100), (70, 130), (64, 64)]):
        values = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(str(folder / f"{index}.png"))
        Image.fromarray(values).save(paths[-1])
    return tuple(paths)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a model by its pipeline class and settings of its transformer, made on first use."""
    made: dict[Any, Path] = {}

    def folder(class_name: str, **transformer: Any) -> Path:
        key = class_name, *transformer.items()
        if key not in made:
            components = {**parts(**transformer), "processor": image_processor()}
            made[key] = write(tmp_path_factory.mktemp(class_name), class_name, components)
        return made[key]

    return folder


def told_of_images(encoder: Any) -> None:
    """Let a text encoder know the tokens of images by their ids, as transformers before 5 did."""
    forward = encoder.forward

    def tell(input_ids: torch.Tensor, **arguments: Any) -> Any:
        kinds = (input_ids == encoder.config.image_token_id).int()
        return forward(input_ids=input_ids, mm_token_type_ids=kinds, **arguments)

    encoder.forward = tell


@pytest.fixture(scope="module")
def vanilla() -> Callable[..., Any]:
    """Call the pipeline of diffusers: ``vanilla(folder, dtype, output_type, **arguments)``."""
    import diffusers
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    def load(folder: Path, dtype: torch.dtype) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=dtype)
        told_of_images(encoder)
        pipeline_class = getattr(diffusers, folder.name.rstrip("0123456789"))
        pipeline = pipeline_class(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            vae=diffusers.AutoencoderKLQwenImage.from_pretrained(folder / "vae", torch_dtype=dtype),
            text_encoder=encoder,
            tokenizer=tokenizer,
            processor=Processor(image_processor(), tokenizer),
            transformer=diffusers.QwenImageTransformer2DModel.from_pretrained(
                folder / "transformer", torch_dtype=dtype
            ),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    loaded: dict[Any, Any] = {}

    def call(folder: Path, dtype: torch.dtype, output_type: str, *, seed: int = 42, **arguments: Any) -> Any:
        if (folder, dtype) not in loaded:
            loaded[folder, dtype] = load(folder, dtype)
        generator = torch.Generator().manual_seed(seed)
        made = loaded[folder, dtype](**arguments, generator=generator, output_type=output_type).images
        return made if output_type == "latent" else np.asarray(made[0])

    return call


def arguments_of(
    prompt: str, images: tuple[str, ...], scale: float, size: tuple[int, int] | None = None, steps: int = 3
) -> tuple[dict[str, Any], ...]:
    """Return one request in the words of the host and in those of diffusers."""
    same: dict[str, Any] = {"prompt": prompt, "num_inference_steps": steps}
    if size is not None:
        same |= {"width": size[0], "height": size[1]}
    opened = [Image.open(path) for path in images]
    theirs = {"image": opened[0] if len(opened) == 1 else opened, "true_cfg_scale": scale, "negative_prompt": " "}
    return {**same, "guidance_scale": scale, "image_path": images}, {**same, **theirs}


CASES = [
    pytest.param(EDIT, 1, id="edit"),
    pytest.param(EDIT_PLUS, 1, id="plus with one"),
    pytest.param(EDIT_PLUS, 2, id="plus with two"),
]


@pytest.mark.usefixtures("small_areas")
@pytest.mark.parametrize("scale", [1.0, 4.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("size", [None, (72, 24)], ids=["size of the image", "given size"])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize(("class_name", "count"), CASES)
def test_latents_equal_those_of_diffusers(folders, images, vanilla, class_name, count, prompt, size, scale) -> None:
    folder = folders(class_name)
    ours, theirs = arguments_of(prompt, images[:count], scale, size)

    found = Native(folder, image_path=images[:count]).latents(**ours)

    # both compute in float32; what is left is the order of sums
    assert distance(found, vanilla(folder, torch.float32, "latent", **theirs)) < 1e-4


@pytest.mark.usefixtures("small_areas")
def test_pixels_are_of_the_shape_of_the_last_image(folders, images, vanilla) -> None:
    folder = folders(EDIT_PLUS)
    ours, theirs = arguments_of("red", images[:2], 4.0)

    frame = Native(folder, image_path=images[:2]).frames(**ours)

    assert frame.shape == (128, 64, 3)
    assert np.abs(frame.astype(int) - vanilla(folder, torch.float32, "pil", **theirs).astype(int)).max() <= 1


@pytest.mark.usefixtures("small_areas")
def test_references_without_noise_give_the_latents_of_diffusers(folders, images, vanilla) -> None:
    folder = folders(EDIT_PLUS, zero_cond_t=True)
    ours, theirs = arguments_of("red", images[:2], 4.0)

    found = Native(folder, image_path=images[:2]).latents(**ours)

    assert distance(found, vanilla(folder, torch.float32, "latent", **theirs)) < 1e-4


@pytest.mark.usefixtures("small_areas")
@pytest.mark.parametrize(("class_name", "count"), CASES[::2])
def test_in_bfloat16_it_is_as_near_to_float32_as_diffusers(folders, images, vanilla, class_name, count) -> None:
    folder = folders(class_name)
    native = Native(folder, image_path=images[:count], precision="bf16")
    ours_off, theirs_off = [], []
    for seed in range(4):  # one run alone is luck: rounding errors are random
        ours, theirs = arguments_of("red", images[:count], 4.0)
        exact = vanilla(folder, torch.float32, "latent", seed=seed, **theirs)
        ours_off.append(distance(native.latents(seed=seed, **ours), exact))
        theirs_off.append(distance(vanilla(folder, torch.bfloat16, "latent", seed=seed, **theirs), exact))

    assert sum(ours_off) <= 1.1 * sum(theirs_off)


@pytest.mark.usefixtures("small_areas")
@pytest.mark.parametrize("mode", ["component-offload", "layerwise-offload"])
def test_offloaded_weights_give_the_same_bits(folders, images, monkeypatch, mode) -> None:
    folder = folders(EDIT_PLUS)
    ours, _ = arguments_of("red", images[:2], 4.0)
    expected = Native(folder, image_path=images[:2]).latents(**ours)
    place = Residency.place
    monkeypatch.setattr(
        Residency, "place", lambda self, name, module, _, *parts: place(self, name, module, mode, *parts)
    )

    moved = Native(folder, image_path=images[:2])

    assert all(torch.equal(moved.latents(**ours), expected) for _ in range(2))


@pytest.mark.usefixtures("small_areas")
def test_images_that_were_seen_are_not_looked_at_again(folders, images) -> None:
    native = Native(folders(EDIT_PLUS), image_path=images[:2])
    (encode,) = (stage for stage in native.pipeline.stages if stage.name == "encode")
    first = native.latents(**arguments_of("red", images[:2], 4.0)[0])

    native.latents(**arguments_of("blue", images[:2], 4.0)[0])
    native.latents(**arguments_of("red", images[1::-1], 4.0)[0])  # the order counts

    assert (len(encode.seen), len(encode.cache)) == (2, 5)
    assert torch.equal(native.latents(**arguments_of("red", images[:2], 4.0)[0]), first)


@pytest.mark.usefixtures("small_areas")
@pytest.mark.parametrize("stage", ["open images", "encode", "encode images", "denoise", "decode"])
def test_cancelled_run_ends_in_its_stage_and_the_next_one_is_whole(folders, images, stage) -> None:
    native = Native(folders(EDIT), image_path=images[:1])
    ours, _ = arguments_of("red", images[:1], 1.0)
    reached: list[str] = []

    def cancel_in_stage(event: object) -> None:
        if isinstance(event, StageStarted):
            reached.append(event.stage)
            if event.stage == stage:
                control.cancel()

    control = StepControl([cancel_in_stage])
    with pytest.raises(RequestCancelledError):
        native.frames(control, **ours)

    assert reached[-1] == stage
    assert native.frames(**ours).shape == (64, 128, 3)


@pytest.mark.usefixtures("small_areas")
def test_prompt_that_contains_the_word_for_an_image_is_refused(folders, images) -> None:
    native = Native(folders(EDIT), image_path=images[:1])

    with pytest.raises(RequestError) as refused:
        native.frames(**arguments_of("red <|image_pad|>", images[:1], 1.0)[0])

    assert refused.value.problem == "the prompt contains <|image_pad|>, which stands for an image"
    assert refused.value.remedy == "leave it out"


@pytest.mark.parametrize("size", [(3000, 3), (2, 2000)], ids=["wide", "high"])
def test_image_that_is_too_narrow_to_be_seen_is_refused(folders, size, tmp_path) -> None:
    path = str(tmp_path / "narrow.png")
    Image.new("RGB", size).save(path)
    native = Native(folders(EDIT_PLUS), image_path=(path,))

    with pytest.raises(RequestError) as refused:
        native.frames(**arguments_of("red", (path,), 1.0, (24, 24))[0])

    assert refused.value.problem.startswith("an image is more than 200 times as long as it is wide")
    assert refused.value.remedy == "cut it to another shape"


@pytest.mark.parametrize("class_name", [EDIT, EDIT_PLUS])
def test_request_without_an_image_is_refused_while_planning(folders, manager, class_name) -> None:
    settings = make_settings(manager, model_path=str(folders(class_name)), prompt="x", backend="sglang")

    with pytest.raises(RequestError, match="this model starts from an image, and none is given"):
        plan_run(manager, settings)


def test_second_image_is_refused_while_planning_where_the_model_edits_one(folders, images, manager) -> None:
    values = {"prompt": "x", "backend": "sglang", "image_path": images[:2]}

    with pytest.raises(RequestError) as refused:
        plan_run(manager, make_settings(manager, model_path=str(folders(EDIT)), **values))

    assert refused.value.problem == "this model starts from one image, not 2"
    assert refused.value.remedy == "give one image"
    several = plan_run(manager, make_settings(manager, model_path=str(folders(EDIT_PLUS)), **values)).plan
    assert several.requests[0].image_path == images[:2]


@pytest.mark.parametrize("class_name", [EDIT, EDIT_PLUS])
@pytest.mark.parametrize("given", [{}, {"width": 64, "height": 96}], ids=["size of the image", "given size"])
def test_both_backends_plan_the_same_request(folders, images, manager, class_name, given, monkeypatch) -> None:
    monkeypatch.setattr(processors, "probe_processors", lambda _: Availability.yes())  # as where torchvision is
    values = {"model_path": str(folders(class_name)), "prompt": "x", "image_path": images[:1], **given}

    native, vanilla = (
        plan_run(manager, make_settings(manager, backend=name, **values)).plan.requests
        for name in ("sglang", "diffusers")
    )

    assert native == vanilla
    assert (native[0].width, native[0].height) == (given.get("width"), given.get("height"))


@pytest.mark.parametrize("size", [(100, 100), (1920, 1080), (37, 811), (3000, 20)], ids=str)
@pytest.mark.parametrize("area", [1024 * 1024, 384 * 384])
def test_sizes_are_chosen_as_in_diffusers(size, area) -> None:
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions

    expected = calculate_dimensions(area, size[0] / size[1])

    assert size_of_area(area, Image.new("RGB", size)) == expected


def test_areas_are_those_of_diffusers() -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus

    assert (edit_stages.AREA, edit_stages.SEEN_AREA) == (edit_plus.VAE_IMAGE_SIZE, edit_plus.CONDITION_IMAGE_SIZE)


def test_folder_without_an_image_processor_is_refused(tmp_path) -> None:
    with pytest.raises(ModelLoadError) as refused:
        ImagePatches.from_folder(tmp_path)

    assert str(tmp_path) in refused.value.problem
    assert refused.value.remedy == "download the model again, with its processor folder"
