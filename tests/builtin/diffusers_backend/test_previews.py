import numpy as np
import pytest

from sglang_core import PreviewReady, PreviewWish, StepControl, StepDone
from sglang_plugins_builtin.diffusers_backend.backend import DiffusersBackend

ARGUMENTS = {
    "qwen": {"width": 32, "height": 32, "num_inference_steps": 3},
    "wan": {"width": 32, "height": 32, "num_inference_steps": 3, "num_frames": 5},
    "stable": {"width": 32, "height": 32, "num_inference_steps": 3},
    "custom": {"num_inference_steps": 3, "trust_remote_code": True},
}
SIZES = {"qwen": (1, 32, 32, 3), "wan": (1, 32, 32, 3), "stable": (1, 32, 32, 3)}


@pytest.mark.parametrize("name", SIZES)
def test_previews_come_between_the_steps_and_change_nothing(name, models, make_plan):
    plan = make_plan(models(name), **ARGUMENTS[name])
    pipeline = DiffusersBackend().load(plan, models(name), StepControl())
    events = []

    plain = pipeline.run(plan.requests[0], StepControl()).frames
    shown = pipeline.run(plan.requests[0], StepControl([events.append], previews=PreviewWish(every=1))).frames

    told = [event for event in events if isinstance(event, StepDone | PreviewReady)]
    assert [type(event) for event in told] == [StepDone, PreviewReady, StepDone, PreviewReady, StepDone]
    previews = [event.frames for event in told if isinstance(event, PreviewReady)]
    assert [(preview.shape, preview.dtype) for preview in previews] == [(SIZES[name], np.uint8)] * 2
    # What is left to do after the second of three steps is little: the estimate is near the result.
    distance = np.abs(previews[1].astype(int) - shown[:1].astype(int)).mean()
    assert distance < 40
    np.testing.assert_array_equal(plain, shown)


def test_pipeline_whose_latents_are_unknown_has_no_previews_and_still_runs(models, make_plan):
    plan = make_plan(models("custom"), **ARGUMENTS["custom"])
    pipeline = DiffusersBackend().load(plan, models("custom"), StepControl())
    events = []

    media = pipeline.run(plan.requests[0], StepControl([events.append], previews=PreviewWish(every=1)))

    assert media.num_frames == 1
    assert not [event for event in events if isinstance(event, PreviewReady)]
