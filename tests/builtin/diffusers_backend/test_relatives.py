"""Pipelines on the components of another one: which there are, and that their pixels are those of diffusers."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sglang_core import (
    CallDescription,
    ConfigError,
    ExecutionPlan,
    ModelDescription,
    RequestCancelledError,
    RequestError,
    StepControl,
    StepDone,
)
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend
from sglang_plugins_builtin.diffusers_backend.pipeline_code import diffusers_folder, installed_pipeline
from sglang_plugins_builtin.diffusers_backend.relatives import relative_of
from sglang_plugins_builtin.diffusers_backend.residency import share_places

Folders = Callable[[str], Path]
Planner = Callable[..., ExecutionPlan]
CLASSES = {
    ("qwen", False): "QwenImageImg2ImgPipeline",
    ("qwen", True): "QwenImageInpaintPipeline",
    ("stable", False): "StableDiffusionImg2ImgPipeline",
    ("stable", True): "StableDiffusionInpaintPipeline",
}
GUIDED = {"qwen": {"negative_prompt": " ", "true_cfg_scale": 3.0}, "stable": {"guidance_scale": 3.0}}


def described(class_name: str) -> ModelDescription:
    """Return a model that has what the constructor of a pipeline class needs."""
    code = installed_pipeline(class_name)
    assert code is not None, class_name
    return SimpleNamespace(pipeline_class=class_name, index=dict.fromkeys(code.components))  # type: ignore[return-value]


def table_of(name: str) -> dict[str, str]:
    """Return a table of diffusers' own, from its source."""
    folder = diffusers_folder()
    assert folder is not None
    text = (folder / "pipelines" / "auto_pipeline.py").read_text(encoding="utf-8")
    block = text[text.index(f"AUTO_{name}_PIPELINES_MAPPING = ") :]
    return dict(re.findall(r'\("([\w-]+)", (\w+)\)', block[: block.index("]\n)")]))


@pytest.mark.parametrize(("task", "table"), [("image", "IMAGE2IMAGE"), ("mask", "INPAINT")])
def test_relatives_are_those_of_diffusers_own_tables(task: Any, table: str) -> None:
    text_to_image, of_task = table_of("TEXT2IMAGE"), table_of(table)
    families = [family for family in of_task if family in text_to_image and of_task[family] != text_to_image[family]]

    found = {family: relative_of(described(text_to_image[family]), task) for family in families}

    names = {family: None if code is None else code.class_name for family, code in found.items()}
    left_out = {family for family, name in names.items() if name is None}
    assert {family: name for family, name in names.items() if name is not None} == {
        family: of_task[family] for family in families if family not in left_out
    }
    assert {"flux", "qwenimage", "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "z-image"} <= set(
        names
    ) - left_out
    # they take a control image beside, or are made of two pipelines
    assert all(re.search("control|kandinsky", family) for family in left_out), left_out


@pytest.mark.parametrize(
    ("class_name", "with_image", "with_mask"),
    [
        ("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline"),
        ("QwenImageEditPipeline", None, "QwenImageEditInpaintPipeline"),
        ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
        ("QwenImageEditPlusPipeline", None, None),
        ("WanPipeline", None, None),
    ],
)
def test_names_tell_what_the_tables_lack(class_name: str, with_image: str | None, with_mask: str | None) -> None:
    model = described(class_name)
    found = [relative_of(model, "image"), relative_of(model, "mask")]

    assert [code and code.class_name for code in found] == [with_image, with_mask]


def test_pipeline_with_a_component_that_the_model_lacks_is_no_relative() -> None:
    model = described("StableDiffusionPipeline")
    model.index.pop("scheduler")  # type: ignore[attr-defined]  # a plain dict in this test

    assert relative_of(model, "mask") is None


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return an image of 32 x 16 pixels and a mask of its right half."""
    folder = tmp_path_factory.mktemp("pictures")
    values = np.random.default_rng(3).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "image.png")
    mask = Image.new("L", (32, 16))
    mask.paste(255, (16, 0, 32, 16))
    mask.save(folder / "mask.png")
    return folder / "image.png", folder / "mask.png"


def call_of(models: Folders, make_plan: Planner, name: str) -> CallDescription:
    return make_plan(models(name)).call


def test_calls_with_inputs_tell_what_they_take(models: Folders, make_plan: Planner) -> None:
    call = call_of(models, make_plan, "stable")
    with_image, with_mask = call.with_image, call.with_mask

    assert (call.takes_image, call.takes_mask) == (True, True)
    assert with_image is not None
    assert with_mask is not None
    assert (with_image.pipeline_class, with_mask.pipeline_class) == (CLASSES["stable", False], CLASSES["stable", True])
    assert set(with_mask.required) == {"image", "mask_image"}
    assert (with_image.parameters["strength"], with_mask.parameters["strength"]) == (0.8, 1.0)
    assert with_image.image_area == 16 * 16  # 8 latents of a side, of 2 pixels each
    assert not call_of(models, make_plan, "wan").takes_image


@pytest.mark.parametrize("masked", [False, True], ids=["image", "mask"])
@pytest.mark.parametrize("name", ["qwen", "stable"])
def test_pixels_equal_those_of_diffusers(
    name: str, masked: bool, models: Folders, make_plan: Planner, pictures: tuple[Path, Path]
) -> None:
    import diffusers
    import torch

    image, mask = pictures
    given = {"num_inference_steps": 4, "strength": 0.75, "guidance_scale": 3.0, "width": 48, "height": 32}
    inputs = {"image_path": (str(image),), **({"mask_path": str(mask)} if masked else {})}
    plan = make_plan(models(name), **given, **inputs)
    text = make_plan(models(name), width=32, height=32, num_inference_steps=2)

    pipeline = DiffusersBackend().load(plan, models(name), StepControl())
    before = pipeline.run(text.requests[0], StepControl()).frames
    found = pipeline.run(plan.requests[0], StepControl()).frames
    again = pipeline.run(text.requests[0], StepControl()).frames

    vanilla = getattr(diffusers, CLASSES[name, masked]).from_pretrained(
        models(name), torch_dtype=torch.float32, local_files_only=True
    )
    arguments: dict[str, Any] = {"image": Image.open(image).convert("RGB"), **GUIDED[name]}
    if masked:
        arguments["mask_image"] = Image.open(mask)
    if name == "stable" and not masked:  # it goes by its image
        arguments["image"] = arguments["image"].resize((48, 32), Image.Resampling.LANCZOS)
    else:
        arguments |= {"width": 48, "height": 32}
    expected = vanilla(
        prompt=plan.requests[0].prompt, num_inference_steps=4, strength=0.75,
        generator=torch.Generator("cpu").manual_seed(42), **arguments,
    ).images  # fmt: skip
    np.testing.assert_array_equal(found[0], np.asarray(expected[0]))
    np.testing.assert_array_equal(before, again)  # the pipeline it was made of is as it was


def test_steps_of_a_relative_are_told_and_can_be_stopped(
    models: Folders, make_plan: Planner, pictures: tuple[Path, Path]
) -> None:
    plan = make_plan(
        models("stable"),
        num_inference_steps=8,
        strength=0.5,
        image_path=(str(pictures[0]),),
        mask_path=str(pictures[1]),
    )
    pipeline = DiffusersBackend().load(plan, models("stable"), StepControl())
    events: list[Any] = []

    def stop_at_second(event: Any) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.stage == "denoise" and event.index == 2:
            control.cancel()

    control = StepControl([stop_at_second])
    with pytest.raises(RequestCancelledError):
        pipeline.run(plan.requests[0], control)

    assert [event.index for event in events if isinstance(event, StepDone) and event.stage == "denoise"] == [1, 2]


def test_result_follows_the_image_up_to_the_models_own_area(
    models: Folders, make_plan: Planner, pictures: tuple[Path, Path]
) -> None:
    def size(name: str, **given: Any) -> tuple[int | None, int | None]:
        request = make_plan(models(name), image_path=(str(pictures[0]),), **given).requests[0]
        return request.width, request.height

    assert size("qwen") == (32, 16)  # far below a megapixel: as it is
    assert size("stable") == (22, 12)  # 256 pixels at most, in the shape of two to one, on a grid of 2
    assert size("stable", width=40) == (40, 20)


def test_mask_with_an_argument_that_its_call_lacks_is_refused(
    models: Folders, make_plan: Planner, pictures: tuple[Path, Path]
) -> None:
    inputs = {"image_path": (str(pictures[0]),), "mask_path": str(pictures[1])}

    with pytest.raises(RequestError, match="StableDiffusionInpaintPipeline takes no true_cfg_scale"):
        make_plan(models("stable"), true_cfg_scale=2.0, **inputs)
    with pytest.raises(ConfigError, match="mask_image is a setting of its own"):
        make_plan(models("stable"), diffusers_kwargs={"mask_image": "x"}, **inputs)
    with pytest.raises(RequestError, match="takes no strength"):
        make_plan(models("stable"), strength=0.5)


def test_offloaded_pipeline_shares_how_it_is_emptied() -> None:
    first, second = SimpleNamespace(), SimpleNamespace()
    share_places(first, second)
    assert vars(second) == {}

    first.maybe_free_model_hooks, first._exclude_from_cpu_offload = print, ["vae"]
    share_places(first, second)

    assert (second.maybe_free_model_hooks, second._exclude_from_cpu_offload) == (print, ["vae"])
