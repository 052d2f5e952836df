"""The stage that encodes prompts, with an encoder that counts."""

import pytest
import torch

from sglang_core import GenerationRequest, RequestCancelledError, StepControl
from sglang_plugins_builtin.native.engine import EncodePrompts, Residency, RunState


class _Uses(Residency):
    """A residency that keeps which components were used."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.used: list[str] = []

    def use(self, name: str) -> None:
        self.used.append(name)


@pytest.fixture
def residency() -> _Uses:
    return _Uses()


@pytest.fixture
def stage(residency: _Uses) -> EncodePrompts:
    """Return the stage; the states of a prompt are as many ones as it has letters."""
    return EncodePrompts(
        lambda prompt: torch.ones(1, len(prompt), 1), residency, is_guided=lambda request: request.guidance_scale == 2
    )


def run(stage: EncodePrompts, control: StepControl | None = None, **request: object) -> dict[str, int]:
    """Return the length of each condition."""
    state = RunState(request=GenerationRequest(prompt="red", **request), generator=torch.Generator())
    stage.run(state, control or StepControl())
    return {name: states.shape[1] for name, states in state.conditions.items()}


def test_negative_prompt_is_encoded_with_guidance_alone(stage) -> None:
    assert run(stage, negative_prompt="blurred") == {"text": 3}
    assert run(stage, negative_prompt="blurred", guidance_scale=2) == {"text": 3, "negative_text": 7}
    assert run(stage, guidance_scale=2) == {"text": 3, "negative_text": 0}


def test_encoder_is_brought_for_prompts_that_are_new_alone(stage, residency) -> None:
    for _ in range(2):
        run(stage, guidance_scale=2)

    assert residency.used == ["text_encoder"] * 2
    assert len(stage.cache) == 2


def test_run_can_be_cancelled_between_the_prompts(stage) -> None:
    control = StepControl()
    control.cancel()

    with pytest.raises(RequestCancelledError):
        run(stage, control, guidance_scale=2)

    assert len(stage.cache) == 1
