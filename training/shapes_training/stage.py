"""One stage of training: what it goes on from, the loop over its steps, and what it leaves."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from .optimizers import Optimizers
from .parallel import Gradients
from .progress import AveragedWeights, TrainingClock, learning_rate, load_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

#: Steps from one line of the log, and from one checkpoint, to the next.
REPORT_STEPS, SAVE_STEPS = 50, 250


class Schedule(Protocol):
    """How long a stage trains, and how fast."""

    @property
    def minutes(self) -> float:
        """Training time; the learning rate falls to zero within it."""

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate."""

    @property
    def max_steps(self) -> int | None:
        """Stop early, after so many steps of this run."""


class Stage:
    """The module, optimizers, averaged weights, clock and steps of one process, from the checkpoint if there is one.

    :param title: of the stage, for the log.
    :param keys: under which the checkpoint has the module and the state of its optimizers.
    """

    def __init__(
        self,
        title: str,
        path: Path,
        module: nn.Module,
        optimizers: Optimizers,
        schedule: Schedule,
        *,
        keys: tuple[str, str],
        decay: float,
    ) -> None:
        self.step = 0
        self.clock = TrainingClock(schedule.minutes)
        self._title, self._path, self._keys = title, path, keys
        self._module, self._optimizers, self._schedule = module, optimizers, schedule
        self._average = AveragedWeights(module, decay=decay)
        #: The checkpoint that training goes on from.
        self.state = load_checkpoint(path)
        if self.state is not None:
            self._go_on(self.state)

    def _go_on(self, state: Mapping[str, Any]) -> None:
        module, optimizers = self._keys
        self._module.load_state_dict(state[module])
        if optimizers in state:
            self._optimizers.load_state_dict(state[optimizers])
        self._average.weights = state["average"]
        self.clock, self.step = TrainingClock(self._schedule.minutes, state["used_s"]), state["step"]
        logger.info("%s: going on from step %d", self._title, self.step)

    def run(
        self,
        compute: Callable[[float], tuple[torch.Tensor, Sequence[float]]],
        report: Callable[[Sequence[Sequence[float]]], str],
        *,
        num_warmup_steps: int,
        num_numbers: int,
        rank: int = 0,
        extra: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Train until the time is used up. The first process logs and writes the checkpoint.

        :param compute: makes one step's loss and ``num_numbers`` numbers, from the fraction of the time that is used.
        :param report: describes the steps so far, from the numbers of the last ones, averaged over all processes.
        :param extra: what else the checkpoint keeps.
        """
        trainable = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        gradients = Gradients(trainable, num_numbers=num_numbers + 1)
        recent: deque[list[float]] = deque(maxlen=REPORT_STEPS)
        max_steps = self._schedule.max_steps
        last_step = None if max_steps is None else self.step + max_steps
        fraction = self.clock.tick()
        while fraction < 1.0 and self.step != last_step:
            gradients.reset()
            loss, numbers = compute(fraction)
            torch.autograd.backward(loss)
            # The clocks are averaged as well, so that all processes agree on rate and end.
            *numbers, fraction = gradients.average((*numbers, self.clock.tick()), max_norm=1.0)
            peak = self._schedule.peak_learning_rate
            self._optimizers.step(learning_rate(fraction, self.step, peak, num_warmup_steps))
            self.step += 1
            recent.append(numbers)
            if rank > 0:
                continue
            self._average.update(self._module, self.step)
            if self.step % REPORT_STEPS == 0:
                logger.info("%s: step %d, %.0f s, %s", self._title, self.step, self.clock.used_s, report(recent))
            if self.step % SAVE_STEPS == 0 or fraction >= 1.0 or self.step == last_step:
                self._save(extra())

    def _save(self, extra: dict[str, Any]) -> None:
        module, optimizers = self._keys
        state = {
            module: self._module.state_dict(),
            "average": self._average.weights,
            optimizers: self._optimizers.state_dict(),
        }
        save_checkpoint(self._path, {**state, **extra, "used_s": self.clock.used_s, "step": self.step})


def read_trained(path: Path, what: str, stage: str) -> dict[str, Any]:
    """Return the checkpoint of a stage.

    :raises FileNotFoundError: if there is none.
    """
    state = load_checkpoint(path)
    if state is None:
        raise FileNotFoundError(f"no trained {what} in {path.parent}: run the stage {stage!r} first")
    return state


def load_average(module: nn.Module, key: str, state: Mapping[str, Any]) -> None:
    """Give a module the averaged weights of its checkpoint."""
    module.load_state_dict(state[key])
    average = AveragedWeights(module, decay=0.0)
    average.weights = state["average"]
    average.copy_to(module)
