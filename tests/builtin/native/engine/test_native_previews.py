import numpy as np
import pytest
import torch

from sglang_core import PreviewReady, PreviewWish, plan_run
from sglang_core.engine.control import StepControl
from sglang_core.generation import load_engine
from sglang_core.testing import make_settings
from sglang_plugins_builtin.native.engine.previews import show
from sglang_plugins_builtin.native.engine.state import RunState

STEPS = 6


@pytest.fixture
def engine(manager):
    """The embedded model, loaded, with requests for two pictures."""
    settings = make_settings(
        manager,
        prompt=["a large red circle on a white background", "a large blue square on a white background"],
        width=64,
        height=64,
        num_inference_steps=STEPS,
        device="cpu",
        backend="sglang",
        output_path="",
    )
    with load_engine(manager, plan_run(manager, settings), StepControl()) as engine:
        yield engine


def distance(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean()


@pytest.mark.model
def test_previews_come_near_to_the_result_and_do_not_change_it(engine):
    events = []
    one, _ = engine.plan.requests

    plain = engine.run(one, StepControl([events.append])).frames
    assert not [event for event in events if isinstance(event, PreviewReady)]
    shown = engine.run(one, StepControl([events.append], previews=PreviewWish(every=1))).frames

    frames = [event.frames for event in events if isinstance(event, PreviewReady)]
    assert (plain == shown).all()
    assert [(preview.shape, preview.dtype) for preview in frames] == [((1, 64, 64, 3), np.uint8)] * (STEPS - 1)
    assert distance(frames[-1], plain) < distance(frames[0], plain)
    assert distance(frames[-1], plain) < 16


@pytest.mark.model
def test_each_run_of_a_batch_has_previews_of_its_own(engine):
    events = []

    results = engine.run_batch(engine.plan.requests, StepControl([events.append], previews=PreviewWish(count=5)))

    last = {event.output: event.frames for event in events if isinstance(event, PreviewReady)}
    assert sorted(last) == [0, 1]
    for place, other in ((0, 1), (1, 0)):
        assert distance(last[place], results[place].frames) < distance(last[place], results[other].frames)


class _Levels:
    sigmas = torch.tensor([0.5, 0.0])


def test_no_memory_for_a_preview_is_no_failure_of_the_run():
    def picture(state, clean):
        raise MemoryError

    state = RunState(request=None, generator=torch.Generator(), picture=picture)
    events = []

    show([state], _Levels(), torch.ones(1, 2), 0, torch.ones(1, 2), StepControl([events.append]))
    show([state], object(), torch.ones(1, 2), 0, torch.ones(1, 2), StepControl([events.append]))

    assert events == []


def test_estimate_is_what_the_flow_leads_to():
    seen = []

    def picture(state, clean):
        seen.append(clean)
        return np.zeros((1, 2, 2, 3), np.uint8)

    state = RunState(request=None, generator=torch.Generator(), picture=picture)

    show([state], _Levels(), torch.full((1, 2), 4.0), 0, torch.full((1, 2), 3.0), StepControl())

    torch.testing.assert_close(seen, [torch.ones(1, 2)])
