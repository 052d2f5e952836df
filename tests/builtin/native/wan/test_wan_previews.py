import numpy as np
import pytest

from sglang_core import PreviewReady, PreviewWish
from sglang_core.engine.control import StepControl
from sglang_core.planning import replan_requests


@pytest.mark.parametrize("name", ["t2v", "ti2v-image"])
def test_preview_of_a_clip_is_its_first_frame_and_does_not_change_it(name, native, images_of):
    model = native(name)
    side = 64 if name.startswith("ti2v") else 32
    request = {"width": side, "height": side, "num_frames": 5, "num_inference_steps": 3, "seed": 5, **images_of(name)}
    plain = model.frames(**request)
    generator, events = model.generator, []
    settings = generator._settings.replace(prompt="a red circle moves", save_output=False, **request)
    (planned,) = replan_requests(generator._manager, generator.plan, settings).requests

    unseen = generator._engine.run(planned, StepControl())
    seen = generator._engine.run(planned, StepControl([events.append], previews=PreviewWish(count=2)))

    previews = [event.frames for event in events if isinstance(event, PreviewReady)]
    assert plain.shape == seen.frames.shape
    assert [(frames.shape, frames.dtype) for frames in previews] == [((1, side, side, 3), np.uint8)] * 2
    np.testing.assert_array_equal(seen.frames, unseen.frames)
