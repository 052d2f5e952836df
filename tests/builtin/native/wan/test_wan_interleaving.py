"""A clip that is made in the middle of another, at its steps, between its stages and while it is decoded."""

import numpy as np
import pytest
from attrs import evolve

from sglang_core import StageStarted, StepControl
from sglang_core.engine.rank_control import RankControl


@pytest.mark.parametrize("name", ["t2v", "t2v-experts", "euler", "ti2v"])
def test_both_clips_are_as_alone(name, native):
    loaded = native(name)
    loaded.frames(num_inference_steps=5)
    pipeline, large = loaded.probe.pipeline, loaded.probe.state.request
    small = evolve(large, prompt="a circle", num_frames=1, num_inference_steps=2, seed=3)
    alone = [pipeline.run(request, StepControl()).frames for request in (large, small)]
    found, stages, asked = [], [], []

    def run():
        found.append((stages[-1], pipeline.run(small, StepControl()).frames))

    def interjected():
        asked.append(None)
        return run if stages and len(asked) % 4 == 0 else None

    control = RankControl(
        [lambda event: stages.append(event.stage) if isinstance(event, StageStarted) else None],
        on_life=lambda: None,
        interjected=interjected,
    )

    around = pipeline.run(large, control).frames

    assert pipeline.can_interleave
    assert {"denoise", "decode"} <= {stage for stage, _ in found}
    assert np.array_equal(around, alone[0])
    assert all(np.array_equal(frames, alone[1]) for _, frames in found)
