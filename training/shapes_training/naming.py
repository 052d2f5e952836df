"""Train a text encoder to name what a caption says, before the transformer has to draw it.

Heads on its hidden states choose among a few words each; they are thrown away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

from .optimizers import Optimizers
from .progress import TrainingClock, learning_rate, load_checkpoint, save_checkpoint
from .stage import REPORT_STEPS, Schedule

logger = logging.getLogger(__name__)

CHECKPOINT = "text.pt"


def is_trained(out: Path) -> bool:
    """Say, in the log too, whether the text encoder was trained on its own already."""
    is_there = (out / CHECKPOINT).exists()
    if is_there:
        logger.info("text encoder: finished already")
    return is_there


def train_naming(
    text_encoder: nn.Module,
    heads: nn.Linear,
    optimizers: Optimizers,
    schedule: Schedule,
    draw: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    *,
    num_choices: Sequence[int],
    goal: str,
    out: Path,
) -> None:
    """Train until the time is used up; the result is the checkpoint.

    :param draw: makes the hidden states of one step, (rows, dim), and the right choices, (rows, heads).
    :param num_choices: of each head.
    :param goal: what a row is when all its choices are right, for the log.
    """
    clock, step = TrainingClock(schedule.minutes), 0
    while (fraction := clock.tick()) < 1.0 and step != schedule.max_steps:
        hidden, right = draw()
        logits = heads(hidden).split(list(num_choices), dim=1)
        losses = [functional.cross_entropy(part, right[:, index]) for index, part in enumerate(logits)]
        loss = torch.stack(losses).sum()
        text_encoder.zero_grad()
        heads.zero_grad()
        torch.autograd.backward(loss)
        optimizers.step(learning_rate(fraction, step, schedule.peak_learning_rate, 50))
        step += 1
        if step % REPORT_STEPS == 0:
            named = torch.stack([part.argmax(1) for part in logits], dim=1)
            share = 100 * (named == right).all(1).float().mean().item()
            values = (step, clock.used_s, loss.item(), share, goal)
            logger.info("text encoder: step %d, %.0f s, loss %.3f, %.1f%% of the %s", *values)
    save_checkpoint(out / CHECKPOINT, {"text_encoder": text_encoder.state_dict(), "step": step})


def load_trained_text(out: Path) -> dict[str, torch.Tensor] | None:
    """Weights of the text encoder, or None if it was not trained on its own."""
    state = load_checkpoint(out / CHECKPOINT)
    return None if state is None else state["text_encoder"]
