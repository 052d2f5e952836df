"""What both training stages share: a clock as the schedule, averaged weights, checkpoints."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn


class TrainingClock:
    """Measures how much of a training budget in minutes is used, over restarts.

    The learning rate follows the clock, not a number of steps: a run ends when its
    time is up, on any machine, with the learning rate at zero. Steps that take
    unusually long (a compilation, a paused process) count at most ``longest_step_s``.
    """

    def __init__(self, minutes: float, used_s: float = 0.0, longest_step_s: float = 20.0) -> None:
        self.budget_s = minutes * 60.0
        self.used_s = used_s
        self._longest_step_s = longest_step_s
        self._last = time.monotonic()

    def tick(self) -> float:
        """Count the time since the last tick; return the fraction of the budget used, up to 1."""
        now = time.monotonic()
        self.used_s += min(now - self._last, self._longest_step_s)
        self._last = now
        return min(1.0, self.used_s / self.budget_s)


def learning_rate(fraction: float, step: int, peak: float, num_warmup_steps: int = 100) -> float:
    """Linear warm-up in steps, then half a cosine down to zero at the end of the budget."""
    decay = 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
    return peak * min(1.0, (step + 1) / num_warmup_steps) * decay


class AveragedWeights:
    """An exponential moving average of the parameters of a module."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take one step towards the current parameters, a larger one at the start of training."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        current = dict(module.named_parameters())
        averages = [self.weights[name] for name in current]
        torch._foreach_lerp_(averages, list(current.values()), 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Replace the parameters of ``module`` by the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that an interrupted write leaves the previous one intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, or return None if there is none yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
