"""Recorded steps: what is copied, what is replayed and when recordings go, with recordings that a CPU can replay."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from tiny_qwen_images import EMBEDDED, Native

from sglang_core import RequestCancelledError, StepControl
from sglang_core.engine.rank_control import RankControl
from sglang_plugins_builtin.native import requests as joining
from sglang_plugins_builtin.native.engine.graphs import RecordedForward, RunGraphs, cuda_graphs, record_denoising

STEPS = 5


class CpuGraph:
    """Computes a recorded call again on the same tensors, which is what a GPU does without asking Python."""

    def __init__(self) -> None:
        self.num_replays = 0
        self.is_released = False

    def record(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        self._call = call
        self._result = torch.full_like(call(), float("nan"))  # what was recorded has not been computed yet
        return self._result

    def replay(self) -> None:
        self.num_replays += 1
        self._result.copy_(self._call())

    def release(self) -> None:
        assert not self.is_released
        self.is_released = True


class Recorder:
    """Keeps the recordings of all runs."""

    def __init__(self) -> None:
        self.runs: list[list[CpuGraph]] = []

    def __call__(self) -> Callable[[], CpuGraph]:
        made: list[CpuGraph] = []
        self.runs.append(made)

        def make() -> CpuGraph:
            made.append(CpuGraph())
            return made[-1]

        return make

    @property
    def replays(self) -> list[list[int]]:
        return [[graph.num_replays for graph in run] for run in self.runs]

    @property
    def all_released(self) -> bool:
        return all(graph.is_released for run in self.runs for graph in run)


@frozen(eq=False)
class Modulation:
    shift: torch.Tensor
    gate: torch.Tensor | None = None
    lengths: tuple[int, ...] = ()


class Denoiser:
    step_arguments = (0, 2)

    def forward(self, latents: torch.Tensor, text: torch.Tensor, modulation: list[Modulation]) -> torch.Tensor:
        return latents * text + sum(each.shift + len(each.lengths) for each in modulation)


@pytest.fixture
def recorded() -> tuple[RecordedForward, list[CpuGraph]]:
    """A denoiser in the middle of a run, and its recordings."""
    forward, graphs = RecordedForward(Denoiser()), Recorder()
    forward.run = RunGraphs(graphs())
    return forward, graphs.runs[0]


def test_what_changes_is_copied_and_results_are_not_written_over(recorded) -> None:
    forward, graphs = recorded
    text, results = torch.ones(2), []

    for step in range(4):
        latents = torch.full((2,), float(step))
        results.append(forward(latents, text, [Modulation(torch.tensor(10.0 * step)), Modulation(torch.zeros(()))]))

    assert [result.tolist() for result in results] == [[11.0 * step] * 2 for step in range(4)]
    assert [graph.num_replays for graph in graphs] == [3]  # the first is computed as ever


def test_each_text_shape_and_kind_of_modulation_has_a_recording_of_its_own(recorded) -> None:
    forward, graphs = recorded
    texts = [torch.full((2,), 1.0), torch.full((2,), 5.0)]
    shapes: list[Any] = [(2,), (3, 2)]
    kinds: list[Any] = [(), (1, 2)]

    for step in range(3):
        for text in texts:
            for shape in shapes:
                for lengths in kinds:
                    modulation = [Modulation(torch.tensor(float(step)), lengths=lengths)]
                    result = forward(torch.full(shape, 2.0), text, modulation)
                    assert result.shape == shape
                    assert (result == 2 * text[0] + step + len(lengths)).all()

    assert [graph.num_replays for graph in graphs] == [2] * 8


def test_outside_of_runs_nothing_is_recorded(recorded) -> None:
    forward, graphs = recorded
    forward.run = None

    for _ in range(3):
        assert forward(torch.ones(2), torch.ones(2), []).tolist() == [1, 1]

    assert graphs == []


@pytest.fixture(scope="module")
def native() -> Native:
    return Native(EMBEDDED, device="cpu")


@pytest.fixture
def recording(native: Native) -> Iterator[Callable[[], Recorder]]:
    """Return what lets the embedded model record its steps until the test is over."""
    pipeline, stages = native.pipeline, list(native.pipeline.stages)

    def begin() -> Recorder:
        recorder = Recorder()
        assert record_denoising(pipeline, recorder)
        return recorder

    yield begin
    pipeline.stages[:] = stages
    del pipeline.components["transformer"].forward


@pytest.mark.model
@pytest.mark.parametrize(
    ("limit", "scale", "replays"),
    [(1024, 1.0, [4]), (1024, 4.0, [4]), (1, 4.0, [4, 4])],
    ids=["unguided", "guided in one pass", "guided in two passes"],
)
def test_a_run_with_recordings_is_equal_to_one_without(
    native: Native,
    recording: Callable[[], Recorder],
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    scale: float,
    replays: list[int],
) -> None:
    monkeypatch.setitem(joining.MAX_JOINED_TOKENS, "cpu", limit)
    asked: dict[str, Any] = {"width": 64, "height": 64, "guidance_scale": scale, "num_inference_steps": STEPS}
    asked |= {"prompt": "a red star", "negative_prompt": "a blue circle"}
    plain = native.latents(**asked, seed=1)

    recorder = recording()
    again = [native.latents(**asked, seed=seed) for seed in (1, 2)]

    assert torch.equal(again[0], plain)
    assert not torch.equal(again[1], plain)
    assert recorder.replays == [replays] * 2
    assert recorder.all_released


@pytest.mark.model
def test_a_batch_with_recordings_is_equal_to_one_without(native: Native, recording: Callable[[], Recorder]) -> None:
    planned = native.planned(width=64, height=64, num_inference_steps=STEPS).plan.requests[0]
    batch = [evolve(planned, prompt=prompt, seed=index) for index, prompt in enumerate(("a red star", "two circles"))]
    plain = [media.frames for media in native.pipeline.run_batch(batch, StepControl())]

    recorder = recording()
    found = [media.frames for media in native.pipeline.run_batch(batch, StepControl())]

    assert all((one == other).all() for one, other in zip(found, plain, strict=True))
    assert recorder.replays == [[STEPS - 1]]


@pytest.mark.model
def test_a_stopped_run_releases_its_recordings(native: Native, recording: Callable[[], Recorder]) -> None:
    recorder, steps = recording(), []

    def listen(event: Any) -> None:
        if getattr(event, "stage", None) == "denoise" and getattr(event, "index", None):
            steps.append(event.index)
            if event.index == 3:
                control.cancel()

    control = StepControl([listen])
    with pytest.raises(RequestCancelledError):
        native.frames(control, width=64, height=64, num_inference_steps=STEPS)

    assert steps == [1, 2, 3]
    assert recorder.replays == [[2]]
    assert recorder.all_released


@pytest.mark.model
def test_a_run_in_the_middle_of_another_has_recordings_of_its_own(
    native: Native, recording: Callable[[], Recorder]
) -> None:
    large, small = (
        native.planned(width=side, height=side, num_inference_steps=STEPS, seed=side).plan.requests[0]
        for side in (96, 64)
    )
    plain = [native.pipeline.run(request, StepControl()).frames for request in (large, small)]
    recorder, found = recording(), []

    def interjected() -> Callable[[], None] | None:
        if found or not recorder.runs or not recorder.runs[0]:
            return None
        return lambda: found.append(native.pipeline.run(small, StepControl()).frames)

    around = native.pipeline.run(large, RankControl(on_life=lambda: None, interjected=interjected)).frames

    assert (around == plain[0]).all()
    assert (found[0] == plain[1]).all()
    assert recorder.replays == [[STEPS - 1], [STEPS - 1]]
    assert recorder.all_released


def test_a_denoiser_that_does_not_say_what_changes_is_not_recorded() -> None:
    class Stage:
        name = "denoise"

        def num_steps(self, state: Any) -> None: ...
        def run(self, state: Any, control: Any) -> None: ...
        def run_batch(self, states: Any, control: Any) -> None: ...

    class Pipeline:
        components = {"transformer": torch.nn.Linear(2, 2)}  # noqa: RUF012 - as a pipeline has it
        stages = [Stage()]  # noqa: RUF012 - as above

    assert not record_denoising(Pipeline())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_recorded_steps_are_equal_to_the_bit(precision: str) -> None:
    asked = {"prompt": "a red star", "negative_prompt": "a circle", "width": 128, "height": 96, "guidance_scale": 4.0}
    native = Native(EMBEDDED, device="cuda", precision=precision)
    expected = [native.latents(**asked, num_inference_steps=STEPS, seed=seed) for seed in (1, 2)]

    assert record_denoising(native.pipeline, cuda_graphs)
    found = [native.latents(**asked, num_inference_steps=STEPS, seed=seed) for seed in (1, 2)]

    assert all(map(torch.equal, found, expected))
