"""Several requests in one batch give what each of them gives alone, whether or not samples share a pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_qwen_images import Native, distance, parts, write

from sglang_core import AttentionCapabilities, Availability, StepControl, create_plugin_manager, hookimpl
from sglang_plugins_builtin.attention.backends import Backend
from sglang_plugins_builtin.attention.reference import ReferenceAttention
from sglang_plugins_builtin.native import requests as joining

STEPS = 3
#: Texts of different lengths, of which a batch has to mask the ends.
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "red", "negative_prompt": "a blue square and nothing else", "seed": 1},
    {"prompt": "a red circle above a blue square", "negative_prompt": " ", "seed": 2},
    {"prompt": "a star", "negative_prompt": "two stars", "seed": 3},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tiny"), "QwenImagePipeline", parts())


class Batch:
    """A loaded model, its requests together and one by one, and how often its transformer was called."""

    def __init__(self, native: Native, size: tuple[int, int] = (40, 24), scale: float = 4.0) -> None:
        same = {"width": size[0], "height": size[1], "guidance_scale": scale, "num_inference_steps": STEPS}
        self._pipeline = native.pipeline
        self._requests = [native.planned(**same, **each).plan.requests[0] for each in REQUESTS]
        self._latents: list[torch.Tensor] = []
        self.samples: list[int] = []
        self._pipeline.stages.insert(-1, self)
        self._pipeline.components["transformer"].register_forward_pre_hook(
            lambda module, arguments: self.samples.append(len(arguments[0]))
        )

    name = "keep"

    def num_steps(self, state: Any) -> None:
        return

    def run(self, state: Any, control: StepControl) -> None:
        self._latents.append(state.latents)

    def alone(self) -> tuple[list[torch.Tensor], list[np.ndarray]]:
        """Return latents and frames of each request run by itself."""
        self._latents, self.samples = [], []
        frames = [self._pipeline.run(request, StepControl()).frames for request in self._requests]
        return self._latents, frames

    def together(self) -> tuple[list[torch.Tensor], list[np.ndarray]]:
        """Return latents and frames of all requests run as a batch."""
        self._latents, self.samples = [], []
        media = self._pipeline.run_batch(self._requests, StepControl())
        return self._latents, [each.frames for each in media]


def farthest(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(distance(one, other) for one, other in zip(found, expected, strict=True))


@pytest.fixture
def joins_up_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda tokens: monkeypatch.setitem(joining.MAX_JOINED_TOKENS, "cpu", tokens)


#: Tokens of 40 x 24 pixels are 15.
@pytest.mark.parametrize(
    ("scale", "limit", "samples"),
    [
        pytest.param(4.0, 15, [6], id="guided"),
        pytest.param(1.0, 15, [3], id="unguided"),
        pytest.param(4.0, 14, [1] * 6, id="guided, too large"),
        pytest.param(1.0, 14, [1] * 3, id="unguided, too large"),
    ],
)
def test_batch_equals_single_runs(tiny, joins_up_to, scale, limit, samples) -> None:
    joins_up_to(limit)
    batch = Batch(Native(tiny), scale=scale)

    latents, frames = batch.together()
    called = batch.samples
    expected, shown = batch.alone()

    assert called == samples * STEPS
    assert farthest(latents, expected) < 1e-5  # float32: the order of sums
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(frames, shown, strict=True)) <= 1
    assert distance(latents[0], latents[1]) > 0.1


@pytest.mark.parametrize("limit", [15, 14], ids=["joined", "too large"])
def test_batch_in_bf16_is_no_further_from_fp32_than_single_runs(tiny, joins_up_to, limit) -> None:
    joins_up_to(limit)
    exact, _ = Batch(Native(tiny)).alone()
    batch = Batch(Native(tiny, precision="bf16"))

    together, _ = batch.together()
    alone, _ = batch.alone()

    for each, single, wanted in zip(together, alone, exact, strict=True):
        # Roundings fall otherwise in a batch; of one picture that moves the distance by some per cent.
        assert distance(each, wanted) <= 1.2 * distance(single, wanted)


def test_both_halves_of_guidance_in_one_pass_give_what_two_passes_give(tiny, joins_up_to) -> None:
    batch = Batch(Native(tiny))
    joins_up_to(15)
    joined, _ = batch.alone()
    joins_up_to(14)
    separate, _ = batch.alone()

    assert farthest(joined, separate) < 1e-5


@pytest.mark.parametrize(("has_masks", "samples"), [(True, [6]), (False, [1] * 6)], ids=["masks", "no masks"])
def test_attention_without_masks_does_not_join(tiny, has_masks, samples) -> None:
    class Kernels:
        @hookimpl
        def sglang_register_attention_backends(self) -> list[Backend]:
            return [
                Backend(
                    name="plain",
                    look=Availability.yes,
                    make=lambda capabilities: ReferenceAttention(),
                    capabilities=AttentionCapabilities(has_masks=has_masks),
                )
            ]

    manager = create_plugin_manager(only_built_ins=True)
    manager.register(Kernels(), "kernels")
    batch = Batch(Native(tiny, manager, component_attention_backends={"transformer": "plain"}))

    latents, _ = batch.together()
    called = batch.samples

    assert called == samples * STEPS
    assert farthest(latents, batch.alone()[0]) < 1e-5
