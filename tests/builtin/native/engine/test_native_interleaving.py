"""A run in the middle of another: both give to the bit what each gives alone."""

import pytest
import torch
from attrs import evolve

from sglang_core import InterleavingPipeline, RequestCancelledError, StepControl, plan_run
from sglang_core.engine.rank_control import RankControl
from sglang_core.generation import load_engine
from sglang_core.testing import make_settings
from sglang_plugins_builtin.native.engine import Residency, StagedPipeline

LARGE = "a large red circle on a white background"
SMALL = "a small blue square above a green triangle on a black background"


@pytest.fixture(scope="module")
def engine():
    """The embedded model, loaded, with the request for a large picture."""
    from sglang_core import create_plugin_manager

    manager = create_plugin_manager(only_built_ins=True)
    settings = make_settings(
        manager,
        prompt=LARGE,
        width=96,
        height=96,
        num_inference_steps=8,
        device="cpu",
        backend="sglang",
        output_path="",
    )
    with load_engine(manager, plan_run(manager, settings), StepControl()) as engine:
        yield engine


@pytest.fixture
def requests(engine):
    (large,) = engine.plan.requests
    return large, evolve(large, prompt=SMALL, width=64, height=64, num_inference_steps=3, seed=7)


def control_with(run, *, every=1):
    """Return a control at whose boundaries ``run`` takes place, at one in ``every``."""
    asked = []

    def interjected():
        asked.append(None)
        return run if len(asked) % every == 0 else None

    return RankControl(on_life=lambda: None, interjected=interjected)


@pytest.mark.model
def test_small_run_at_many_boundaries_changes_nothing_of_the_large_one_nor_of_itself(engine, requests):
    large, small = requests
    alone = engine.run(large, StepControl()).frames
    small_alone = engine.run(small, StepControl()).frames
    found = []

    def run():
        assert not torch.is_inference_mode_enabled()
        found.append(engine.run(small, StepControl()).frames)

    control = control_with(run, every=6)
    around = engine.run(large, control).frames

    assert engine.can_interleave
    assert len(found) > 3
    assert (around == alone).all()
    assert all((frames == small_alone).all() for frames in found)
    assert control.paused_s > sum(control.timings_s.values()) * 0.1


@pytest.mark.model
def test_batch_in_the_middle_of_a_batch(engine, requests):
    large, small = ([evolve(request, seed=seed) for seed in (1, 2)] for request in requests)
    alone = [[media.frames for media in engine.run_batch(batch, StepControl())] for batch in (large, small)]
    found = []

    control = control_with(lambda: found.append(engine.run_batch(small, StepControl())), every=20)
    around = [media.frames for media in engine.run_batch(large, control)]

    assert found
    assert all((one == other).all() for one, other in zip(around, alone[0], strict=True))
    for batch in found:
        assert all((media.frames == frames).all() for media, frames in zip(batch, alone[1], strict=True))


@pytest.mark.model
def test_run_that_is_stopped_in_the_middle_changes_nothing_of_the_other(engine, requests):
    large, small = requests
    alone = engine.run(large, StepControl()).frames
    stopped = []

    def run():
        inner = StepControl([lambda event: inner.cancel()])
        with pytest.raises(RequestCancelledError):
            engine.run(small, inner)
        stopped.append(inner)

    around = engine.run(large, control_with(run, every=5)).frames

    assert stopped
    assert (around == alone).all()


@pytest.mark.parametrize(("mode", "can"), [("resident", True), ("component-offload", False)])
def test_components_that_come_and_go_are_taken_from_nobody(mode, can):
    residency = Residency(torch.device("cpu"))
    residency.place("transformer", torch.nn.Linear(2, 2), mode)

    pipeline = StagedPipeline(None, [], {}, residency)

    assert isinstance(pipeline, InterleavingPipeline)
    assert pipeline.can_interleave is can
