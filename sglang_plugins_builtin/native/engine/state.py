"""What one run carries from stage to stage."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from attrs import define, field

from sglang_core import GeneratedMedia, GenerationRequest


class Schedule(Protocol):
    """The noise levels of one run and how a step is made; it may remember earlier steps."""

    def __len__(self) -> int:
        """Return the number of steps."""

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents after step ``index`` (from 0), of the shape and dtype of ``latents``."""


#: What the model predicts for these latents at step ``index``, with guidance applied: of the latents' shape.
Predict = Callable[[torch.Tensor, int], torch.Tensor]


@define(kw_only=True)
class RunState:
    """One run: what was asked for and what the stages have made of it so far.

    Each stage fills what the next ones read: ``encode`` the conditions, ``prepare`` schedule, latents and predict,
    ``denoise`` changes the latents, ``decode`` the media. ``conditions`` is the family's own.
    """

    request: GenerationRequest
    generator: torch.Generator
    conditions: dict[str, Any] = field(factory=dict)
    schedule: Schedule | None = None
    latents: torch.Tensor | None = None
    predict: Predict | None = None
    #: Returns one prediction for several prepared runs, their latents one after the other in the first dimension;
    #: ``None`` where that does not pay, or the family does not know how. The runs differ in prompts and seed only.
    join: "Callable[[Sequence[RunState]], Predict] | None" = None
    #: Returns the latents after step ``index`` with what must stay as it was put back, where something must.
    hold: "Callable[[torch.Tensor, int], torch.Tensor] | None" = None
    media: GeneratedMedia | None = None
    #: Returns one frame, uint8 (1, height, width, 3), of an estimate of this run's clean latents, where a stage can.
    picture: "Callable[[RunState, torch.Tensor], Any] | None" = None
