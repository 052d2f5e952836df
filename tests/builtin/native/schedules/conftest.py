"""Runs of noise schedules, and how far two results are from each other."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch


@pytest.fixture
def distance() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Relative L2 distance of a result to the expected one."""

    def measure(result: torch.Tensor, expected: torch.Tensor) -> float:
        return float((result.double() - expected.double()).norm() / expected.double().norm())

    return measure


@pytest.fixture
def trajectories() -> Callable[..., Iterator[tuple[torch.Tensor, torch.Tensor]]]:
    """Latents after every step on the same random predictions, by ours and by diffusers."""

    def run(scheduler: Any, schedule: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(7)
        expected = latents = torch.randn(2, 3, 2, 4, 5, generator=generator)
        for index, timestep in enumerate(scheduler.timesteps):
            # partly random, partly pointing back to the latents: predictions of a model are alike too
            noise = torch.randn(latents.shape, generator=generator)
            expected = scheduler.step(0.5 * expected + noise, timestep, expected).prev_sample
            latents = schedule.step(0.5 * latents + noise, index, latents)
            yield latents, expected

    return run
