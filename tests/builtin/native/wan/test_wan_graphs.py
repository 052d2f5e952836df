"""Recorded steps of Wan: experts, spans of tokens with timesteps of their own, and clips that start from an image."""

from collections.abc import Callable

import pytest
import torch

from sglang_plugins_builtin.native.engine.graphs import record_denoising


class Graph:
    """Computes a recorded call again on the same tensors."""

    def record(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        self._call, self._result = call, torch.full_like(call(), float("nan"))
        return self._result

    def replay(self) -> None:
        self._result.copy_(self._call())

    def release(self) -> None: ...


@pytest.mark.parametrize("name", ["t2v", "t2v-experts", "ti2v"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_clip_with_recordings_is_equal_to_one_without(native, name, scale) -> None:
    loaded = native(name)
    asked = {"num_inference_steps": 6, "guidance_scale": scale}
    plain = loaded.latents(**asked)
    pipeline, made = loaded.probe.pipeline, []
    stages, denoisers = list(pipeline.stages), [n for n in pipeline.components if n.startswith("transformer")]

    def make() -> Graph:
        made.append(Graph())
        return made[-1]

    assert record_denoising(pipeline, lambda: make)
    try:
        found = loaded.latents(**asked)
    finally:
        pipeline.stages[:] = stages
        for denoiser in denoisers:
            del pipeline.components[denoiser].forward

    assert torch.equal(found, plain)
    assert len(made) == len(denoisers)
