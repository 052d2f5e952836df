"""Several requests in one batch give what each of them gives alone, whether or not samples share a pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve

from sglang_core import AttentionCapabilities, Availability, StepControl, hookimpl
from sglang_plugins_builtin.attention.backends import Backend
from sglang_plugins_builtin.attention.reference import ReferenceAttention
from sglang_plugins_builtin.native import requests as joining

STEPS = 3
#: Texts of different lengths, after which Wan attends to zeros.
TEXTS: list[dict[str, Any]] = [
    {"prompt": "a red circle moves", "negative_prompt": "the", "seed": 1},
    {"prompt": "a circle", "negative_prompt": "", "seed": 2},
    {"prompt": "the red", "negative_prompt": "a circle, red, moves", "seed": 3},
]
#: Tokens of 5 frames of 32 x 32 pixels.
TOKENS = 8


class Batch:
    """A loaded model, its requests together and one by one, and how many samples its transformers were given."""

    def __init__(self, loaded: Any, **request: Any) -> None:
        loaded.frames(num_inference_steps=STEPS, **request)
        self._pipeline, planned = loaded.probe.pipeline, loaded.probe.state.request
        self._requests = [evolve(planned, **texts) for texts in TEXTS]
        self._latents: list[torch.Tensor] = []
        self.samples: list[int] = []

    name = "keep latents"

    def num_steps(self, state: Any) -> None:
        return

    def run(self, state: Any, control: StepControl) -> None:
        self._latents.append(state.latents)

    def alone(self) -> tuple[list[torch.Tensor], list[np.ndarray]]:
        """Return latents and frames of each request run by itself."""
        return self._watched(lambda: [self._pipeline.run(request, StepControl()) for request in self._requests])

    def together(self) -> tuple[list[torch.Tensor], list[np.ndarray]]:
        """Return latents and frames of all requests run as a batch."""
        return self._watched(lambda: self._pipeline.run_batch(self._requests, StepControl()))

    def _watched(self, run: Callable[[], Any]) -> tuple[list[torch.Tensor], list[np.ndarray]]:
        self._latents, self.samples = [], []
        hooks = [
            component.register_forward_pre_hook(lambda module, arguments: self.samples.append(len(arguments[0])))
            for name, component in self._pipeline.components.items()
            if name.startswith("transformer")
        ]
        self._pipeline.stages.insert(-1, self)
        try:
            frames = [media.frames for media in run()]
        finally:
            self._pipeline.stages.remove(self)
            for hook in hooks:
                hook.remove()
        return self._latents, frames


@pytest.fixture
def joins_up_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda tokens: monkeypatch.setitem(joining.MAX_JOINED_TOKENS, "cpu", tokens)


@pytest.mark.parametrize("name", ["t2v", "t2v-experts", "euler", "ti2v"])
@pytest.mark.parametrize(
    ("scale", "limit", "samples"),
    [
        pytest.param(4.0, TOKENS, [6], id="guided"),
        pytest.param(1.0, TOKENS, [3], id="unguided"),
        pytest.param(4.0, 1, [1] * 6, id="guided, too large"),
    ],
)
def test_batch_equals_single_runs(native, joins_up_to, distance, name, scale, limit, samples) -> None:
    joins_up_to(limit)
    batch = Batch(native(name), guidance_scale=scale)

    latents, frames = batch.together()
    called = batch.samples
    expected, shown = batch.alone()

    assert called == samples * STEPS
    assert max(map(distance, latents, expected)) < 1e-5  # float32: the order of sums
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(frames, shown, strict=True)) <= 1
    assert distance(latents[0], latents[1]) > 0.1


@pytest.mark.parametrize("limit", [TOKENS, 1], ids=["joined", "too large"])
def test_batch_in_bf16_is_no_further_from_fp32_than_single_runs(native, joins_up_to, distance, limit) -> None:
    joins_up_to(limit)
    exact, _ = Batch(native("t2v")).alone()
    batch = Batch(native("t2v", "bf16"))

    together, _ = batch.together()
    alone, _ = batch.alone()

    for each, single, wanted in zip(together, alone, exact, strict=True):
        # Roundings fall otherwise in a batch; of one clip that moves the distance by some per cent.
        assert distance(each, wanted) <= 1.2 * distance(single, wanted)


def test_both_halves_of_guidance_in_one_pass_give_what_two_passes_give(native, joins_up_to, distance) -> None:
    batch = Batch(native("t2v"))
    joins_up_to(TOKENS)
    joined, _ = batch.alone()
    joins_up_to(1)
    separate, _ = batch.alone()

    assert max(map(distance, joined, separate)) < 1e-5


@pytest.mark.parametrize("has_lse", [True, False], ids=["log-sum-exp", "rows"])
def test_batch_needs_no_masks(native, distance, has_lse) -> None:
    class Kernels:
        @hookimpl
        def sglang_register_attention_backends(self) -> list[Backend]:
            return [
                Backend(
                    name="plain",
                    look=Availability.yes,
                    make=lambda capabilities: ReferenceAttention(),
                    capabilities=AttentionCapabilities(has_masks=False, has_lse=has_lse),
                )
            ]

    chosen = {"component_attention_backends": {"transformer": "plain"}}
    batch = Batch(native("t2v", plugins=(Kernels(),), **chosen))

    latents, _ = batch.together()
    called = batch.samples

    assert called == [6] * STEPS
    assert max(map(distance, latents, batch.alone()[0])) < 1e-5
    assert max(map(distance, latents, Batch(native("t2v")).alone()[0])) < 1e-4  # the padding counts as it always does
