"""Runs of loaded pipelines: the pixels of diffusers, under step control."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglang_core import (
    DeadlineExceededError,
    ExecutionPlan,
    GeneratedMedia,
    LoadedPipeline,
    RequestCancelledError,
    RequestError,
    StageStarted,
    StepControl,
    StepDone,
)
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend

Folders = Callable[[str], Path]
Planner = Callable[..., ExecutionPlan]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "qwen": {"width": 32, "height": 32, "num_inference_steps": 3, "guidance_scale": 3.0},
    "wan": {"width": 32, "height": 32, "num_inference_steps": 3, "num_frames": 5},
    "stable": {"width": 32, "height": 32, "num_inference_steps": 3},
    "custom": {"num_inference_steps": 3, "trust_remote_code": True},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(models: Folders, make_plan: Planner) -> Callable[[str], tuple[ExecutionPlan, LoadedPipeline]]:
    """Return a loaded tiny model by name; each is loaded once."""
    kept: dict[str, tuple[ExecutionPlan, LoadedPipeline]] = {}

    def load(name: str) -> tuple[ExecutionPlan, LoadedPipeline]:
        if name not in kept:
            plan = make_plan(models(name), **ARGUMENTS[name])
            kept[name] = plan, DiffusersBackend().load(plan, models(name), StepControl())
        return kept[name]

    return load


def vanilla(folder: Path, plan: ExecutionPlan, **arguments: Any) -> "np.ndarray[Any, Any]":
    """Call diffusers itself and return the pixels of its PIL images, (frames, height, width, 3)."""
    import torch
    from diffusers import DiffusionPipeline

    trust = {"trust_remote_code": True} if isinstance(plan.model.index["_class_name"], list) else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, **trust)
    request = plan.requests[0]
    names = ("prompt", "width", "height", "num_frames", "num_inference_steps")
    call = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    if plan.kind == "video":
        arguments["output_type"] = "pil"
    result = pipeline(**call, **arguments, generator=torch.Generator("cpu").manual_seed(request.seed))
    pictures = result.frames[0] if plan.kind == "video" else result.images
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("qwen", {"negative_prompt": " ", "true_cfg_scale": 3.0}),
        ("wan", {}),
        ("stable", {}),
        ("custom", {}),
    ],
)
def test_pixels_equal_those_of_diffusers(
    name: str, arguments: dict[str, Any], models: Folders, loaded: Callable[[str], Any]
) -> None:
    plan, pipeline = loaded(name)

    media = pipeline.run(plan.requests[0], StepControl())

    assert media.kind == ("video" if name == "wan" else "image")
    np.testing.assert_array_equal(media.frames, vanilla(models(name), plan, **arguments))


def test_another_seed_makes_another_picture_and_the_same_seed_the_same(
    models: Folders, make_plan: Planner, loaded: Callable[[str], Any]
) -> None:
    _, pipeline = loaded("custom")
    first, second = make_plan(models("custom"), **ARGUMENTS["custom"], seed=(7,), num_outputs_per_prompt=2).requests

    one, other, again = (pipeline.run(request, StepControl()).frames for request in (first, second, first))

    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize("name", ["qwen", "stable", "custom"])
def test_each_step_is_told_with_its_stage(name: str, loaded: Callable[[str], Any]) -> None:
    plan, pipeline = loaded(name)
    events: list[Any] = []

    pipeline.run(plan.requests[0], StepControl([events.append]))

    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    steps = [(event.index, event.total) for event in events if isinstance(event, StepDone)]
    assert stages[:2] == ["encode", "denoise"]
    assert stages[2:] == ([] if name == "custom" else ["decode"])
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
@pytest.mark.parametrize("name", ["qwen", "stable"])
def test_a_cancelled_run_ends_in_its_stage_and_the_next_one_is_whole(
    name: str, stage: str, loaded: Callable[[str], Any]
) -> None:
    plan, pipeline = loaded(name)
    whole = pipeline.run(plan.requests[0], StepControl())
    reached: list[str] = []

    def cancel_in_stage(event: Any) -> None:
        if isinstance(event, StageStarted):
            reached.append(event.stage)
            if event.stage == stage:
                control.cancel()

    control = StepControl([cancel_in_stage])
    with pytest.raises(RequestCancelledError):
        pipeline.run(plan.requests[0], control)

    assert reached[-1] == stage
    assert (pipeline.run(plan.requests[0], StepControl()).frames == whole.frames).all()


def test_a_run_past_its_deadline_stops_at_a_step(loaded: Callable[[str], Any]) -> None:
    plan, pipeline = loaded("custom")

    with pytest.raises(DeadlineExceededError, match="--timeout-s"):
        pipeline.run(plan.requests[0], StepControl(timeout_s=1e-9))


def test_a_clip_has_the_frame_rate_of_its_family(loaded: Callable[[str], Any]) -> None:
    plan, pipeline = loaded("wan")

    media: GeneratedMedia = pipeline.run(plan.requests[0], StepControl())

    assert (media.num_frames, media.size, media.fps) == (5, (32, 32), 16.0)


def test_what_the_pipeline_refuses_is_one_sentence(
    models: Folders, make_plan: Planner, loaded: Callable[[str], Any]
) -> None:
    _, pipeline = loaded("qwen")
    plan = make_plan(models("qwen"), **ARGUMENTS["qwen"], diffusers_kwargs={"max_sequence_length": 9999})

    with pytest.raises(RequestError, match=r"QwenImagePipeline failed: .*max_sequence_length") as caught:
        pipeline.run(plan.requests[0], StepControl())

    assert caught.value.remedy == "change the argument it names"


def test_values_that_are_no_numbers_are_refused_with_another_precision(models: Folders, make_plan: Planner) -> None:
    import torch

    plan = make_plan(models("stable"), **ARGUMENTS["stable"])
    pipeline = DiffusersBackend().load(plan, models("stable"), StepControl())
    with torch.no_grad():
        next(pipeline.components["vae"].decoder.parameters()).fill_(float("nan"))

    with pytest.raises(RequestError, match="not numbers, in precision fp32") as caught:
        pipeline.run(plan.requests[0], StepControl())

    assert "--vae-precision fp32" in caught.value.remedy


def test_a_full_device_is_told_with_what_would_need_less(loaded: Callable[[str], Any], monkeypatch: Any) -> None:
    import torch

    from sglang_core import OutOfDeviceMemoryError

    plan, pipeline = loaded("custom")

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

    monkeypatch.setattr(pipeline.components["unet"], "forward", fail)

    with pytest.raises(OutOfDeviceMemoryError, match=r"2\.50 GiB more were asked for") as caught:
        pipeline.run(plan.requests[0], StepControl())

    assert "smaller size" in caught.value.remedy
