"""The stages every family shares: the protocol, and the denoising loop."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from sglang_core import GenerationRequest, RequestError, StepControl

from .previews import show
from .state import Predict, RunState


class Stage(Protocol):
    """One part of a run. A family composes stages; a pipeline transform may replace or wrap them.

    What belongs to a run is kept in its state: at each step another run may take place, with the same stages.
    """

    @property
    def name(self) -> str:
        """What progress and timings call it: ``encode``, ``prepare``, ``denoise``, ``decode``, or a new word."""

    def num_steps(self, state: RunState) -> int | None:
        """Return the number of its steps, when known before it runs."""

    def run(self, state: RunState, control: StepControl) -> None:
        """Do the work on ``state``; call ``control.step`` between steps, or ``control.check`` where there are none."""


@runtime_checkable
class BatchStage(Stage, Protocol):
    """A stage that can do the work of several runs at once; other stages do it for one after the other."""

    def run_batch(self, states: Sequence[RunState], control: StepControl) -> None:
        """Do the work on every state; they differ in prompts and seed only."""


@runtime_checkable
class OptionalStage(Stage, Protocol):
    """A stage that not every run has."""

    def is_needed(self, request: GenerationRequest) -> bool:
        """Say whether a request has something for it to do; if not it is passed over, and nobody hears of it."""


@runtime_checkable
class RememberingStage(Stage, Protocol):
    """A stage that keeps what it computed for further runs."""

    def forget(self) -> None:
        """Forget it, since weights have changed."""


class Denoise:
    """The denoising loop: predict, step, and a boundary where the run can be stopped."""

    name = "denoise"

    def num_steps(self, state: RunState) -> int:
        """Return the number of steps of the schedule."""
        assert state.schedule is not None
        return len(state.schedule)

    def run(self, state: RunState, control: StepControl) -> None:
        """Take the latents through all noise levels.

        :raises RequestError: if the result holds values that are no numbers.
        """
        self.run_batch([state], control)

    def run_batch(self, states: Sequence[RunState], control: StepControl) -> None:
        """Take the latents of all runs through all noise levels, a step of all being one step.

        :raises RequestError: if a result holds values that are no numbers.
        """
        schedule, predict = states[0].schedule, _prediction(states)
        assert schedule is not None
        latents = torch.cat([_latents(state) for state in states])
        total = len(schedule)
        for index in range(total):
            before, prediction = latents, predict(latents, index)
            latents = _held(states, schedule.step(prediction, index, before), index)
            control.step(self.name, index + 1, total)
            if control.wants_preview(index + 1, total):
                show(states, schedule, prediction, index, before, control)
        refuse_non_finite(latents)
        for state, result in zip(states, latents.chunk(len(states)), strict=True):
            state.latents = result


def _held(states: Sequence[RunState], latents: torch.Tensor, index: int) -> torch.Tensor:
    """Return the latents after a step with what their runs hold put back."""
    if all(state.hold is None for state in states):
        return latents
    each = zip(states, latents.chunk(len(states)), strict=True)
    return torch.cat([some if state.hold is None else state.hold(some, index) for state, some in each])


def _prediction(states: Sequence[RunState]) -> Predict:
    """Return the prediction for the runs' latents one after the other in the first dimension."""
    if len(states) > 1 and states[0].join is not None:
        return states[0].join(states)
    predictions = [state.predict for state in states if state.predict is not None]
    assert len(predictions) == len(states)
    if len(predictions) == 1:
        return predictions[0]

    def predict(latents: torch.Tensor, index: int) -> torch.Tensor:
        each = zip(predictions, latents.chunk(len(predictions)), strict=True)
        return torch.cat([prediction(some, index) for prediction, some in each])

    return predict


def _latents(state: RunState) -> torch.Tensor:
    assert state.latents is not None
    return state.latents


def refuse_non_finite(latents: torch.Tensor) -> None:
    """Stop a run whose latents overflowed, before a black picture is made of them.

    :raises RequestError: if a value is infinite or not a number.
    """
    if not bool(torch.isfinite(latents).all()):
        raise RequestError(
            f"the latents hold values that are no numbers after denoising in {str(latents.dtype).partition('.')[2]}",
            "use --dit-precision fp32 (or bf16 in place of fp16), or a lower --guidance-scale",
        )
