from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve

from sglang_core import (
    ExecutionPlan,
    GeneratedMedia,
    GenerationRequest,
    MemoryStage,
    OutOfDeviceMemoryError,
    RequestCancelledError,
    RequestError,
    RunMemory,
    create_plugin_manager,
    free_device_bytes,
    plan_run,
)
from sglang_core.engine.control import StepControl
from sglang_core.events import StepDone
from sglang_core.testing import make_settings, no_op_plugin, write_tiny_pipeline
from sglang_plugins_builtin.native.engine import (
    ConditioningCache,
    Denoise,
    Residency,
    RunState,
    StagedPipeline,
    memory,
    to_media,
)


class _Halving:
    """A schedule whose steps add half of the prediction."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        return latents + prediction / 2


class _Prepare:
    name = "prepare"

    def __init__(self, predicted: float = 1.0) -> None:
        self._predicted = predicted

    def num_steps(self, state: RunState) -> None:
        return

    def run(self, state: RunState, control: StepControl) -> None:
        state.latents = torch.randn(3, 1, 2, 2, generator=state.generator)
        state.schedule = _Halving(state.request.num_inference_steps or 1)
        state.predict = lambda latents, index: torch.full_like(latents, self._predicted)


class _Decode:
    name = "decode"

    def num_steps(self, state: RunState) -> None:
        return

    def run(self, state: RunState, control: StepControl) -> None:
        assert state.latents is not None
        state.media = to_media(state.latents, "image")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ExecutionPlan:
    folder = write_tiny_pipeline(tmp_path_factory.mktemp("model"))
    manager = create_plugin_manager(only_built_ins=True)
    manager.register(no_op_plugin(), "no_op")
    return plan_run(
        manager, make_settings(manager, model_path=str(folder), prompt="x", backend="no_op", device="cpu")
    ).plan


def _pipeline(plan, *stages: object) -> StagedPipeline:
    return StagedPipeline(plan, stages, {}, Residency(torch.device("cpu")))


REQUEST = GenerationRequest(prompt="x", num_inference_steps=4, width=16, height=16)


def test_stages_run_in_order_and_steps_are_reported(plan) -> None:
    events: list[StepDone] = []
    control = StepControl([lambda event: events.append(event) if isinstance(event, StepDone) else None])

    media = _pipeline(plan, _Prepare(), Denoise(), _Decode()).run(REQUEST, control)

    assert isinstance(media, GeneratedMedia)
    assert [(event.index, event.total) for event in events] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(control.timings_s) == ["prepare", "denoise", "decode"]


def test_same_seed_same_frames(plan) -> None:
    pipeline = _pipeline(plan, _Prepare(predicted=0.0), Denoise(), _Decode())

    first, again = (pipeline.run(REQUEST, StepControl()).frames for _ in range(2))

    assert (first == again).all()


def test_cancel_stops_within_a_step_and_the_pipeline_stays_usable(plan) -> None:
    pipeline = _pipeline(plan, _Prepare(), Denoise(), _Decode())
    done: list[int] = []

    def cancel_after_two(event: object) -> None:
        if isinstance(event, StepDone):
            done.append(event.index)
            if event.index == 2:
                control.cancel()

    control = StepControl([cancel_after_two])
    with pytest.raises(RequestCancelledError):
        pipeline.run(REQUEST, control)

    assert done == [1, 2]
    assert pipeline.run(REQUEST, StepControl()).num_frames == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_latents_that_are_no_numbers_end_the_run(plan, value: float) -> None:
    with pytest.raises(RequestError, match="no numbers after denoising in float32") as caught:
        _pipeline(plan, _Prepare(value), Denoise(), _Decode()).run(REQUEST, StepControl())

    assert "--dit-precision fp32" in caught.value.remedy


def test_stages_that_make_nothing_are_named(plan) -> None:
    with pytest.raises(RequestError, match=r"none of the stages \(prepare, denoise\) made"):
        _pipeline(plan, _Prepare(), Denoise()).run(REQUEST, StepControl())


def test_out_of_memory_names_the_size(plan) -> None:
    class Greedy(_Decode):
        def run(self, state: RunState, control: StepControl) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    with pytest.raises(
        OutOfDeviceMemoryError, match=r"16x16 does not fit into the memory of cpu .20\.00 GiB"
    ) as caught:
        _pipeline(plan, _Prepare(), Denoise(), Greedy()).run(REQUEST, StepControl())

    assert "smaller size" in caught.value.remedy


def test_out_of_memory_names_the_largest_size_that_fits(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(_Decode):
        def run(self, state: RunState, control: StepControl) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")

    def memory_of(request: GenerationRequest) -> RunMemory:
        return RunMemory(
            stages=(MemoryStage(name="decode", activation_bytes=(request.width or 0) * (request.height or 0)),),
            weights_bytes=dict.fromkeys(plan.components, 0),
        )

    monkeypatch.setattr(memory, "capacity_bytes", lambda device: 64 * 32)
    pipeline = _pipeline(plan, _Prepare(), Denoise(), Greedy())
    pipeline.memory_of = memory_of

    with pytest.raises(
        OutOfDeviceMemoryError, match=r"128x64 does not fit into the memory of cpu .4096 bytes"
    ) as caught:
        pipeline.run(evolve(REQUEST, width=128, height=64), StepControl())

    assert caught.value.remedy == "--width 64 --height 32, the largest of this shape that fits"


def test_batch_that_does_not_fit_makes_nothing_and_says_to_run_them_alone(plan) -> None:
    class Greedy(_Decode):
        def run(self, state: RunState, control: StepControl) -> None:
            runs.append(state.request.seed)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")

    runs: list[int] = []
    requests = [evolve(REQUEST, seed=seed) for seed in (1, 2)]
    with pytest.raises(
        OutOfDeviceMemoryError, match=r"a batch of 2 outputs of 16x16 does not fit into the memory of cpu .4096 bytes"
    ) as caught:
        _pipeline(plan, _Prepare(), Denoise(), Greedy()).run_batch(requests, StepControl())

    assert caught.value.remedy == "run fewer of them together, or each alone"
    assert runs == [1]


def test_capacity_is_what_is_free_and_what_this_process_has() -> None:
    assert (memory.capacity_bytes("cpu") or 0) > (free_device_bytes("cpu") or 0)


def test_a_stage_can_be_wrapped(plan) -> None:
    class Negated(_Decode):
        def run(self, state: RunState, control: StepControl) -> None:
            assert state.latents is not None
            state.latents = -state.latents
            super().run(state, control)

    pipeline = _pipeline(plan, _Prepare(predicted=0.0), Denoise(), _Decode())
    plain = pipeline.run(REQUEST, StepControl()).frames

    pipeline.stages[-1] = Negated()
    negated = pipeline.run(REQUEST, StepControl()).frames

    assert (plain.astype(int) + negated - 255).max() <= 1


def test_frames_are_rounded_to_the_nearest_level() -> None:
    decoded = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5).expand(3, 1, 1, 5)

    assert to_media(decoded, "image").frames[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_cache_forgets_the_least_recently_used() -> None:
    cache: ConditioningCache[str] = ConditioningCache(max_entries=2)
    made: list[str] = []

    def make(key: str) -> str:
        return cache.get_or_make(key, lambda: made.append(key) or key)

    for key in ("a", "b", "a", "c", "a", "b"):
        assert make(key) == key

    assert made == ["a", "b", "c", "b"]
    assert len(cache) == 2


def test_cache_of_no_entries_remembers_nothing() -> None:
    cache: ConditioningCache[int] = ConditioningCache(max_entries=0)

    assert [cache.get_or_make("a", lambda value=value: value) for value in (1, 2)] == [1, 2]
    assert len(cache) == 0
