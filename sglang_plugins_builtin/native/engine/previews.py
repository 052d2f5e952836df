"""Pictures between two steps: what the latents would be without their noise, decoded."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from sglang_core import StepControl, is_out_of_memory

from .state import RunState, Schedule

logger = logging.getLogger(__name__)


@runtime_checkable
class PictureStage(Protocol):
    """A stage that can make a picture of latents before they are finished: the decoding stage of a family."""

    def picture(self, state: RunState, clean: torch.Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """Return one frame, uint8 (1, height, width, 3).

        :param clean: an estimate of the latents without noise, float32, of the shape of the run's latents.
        """


def show(
    states: Sequence[RunState],
    schedule: Schedule,
    prediction: torch.Tensor,
    index: int,
    before: torch.Tensor,
    control: StepControl,
) -> None:
    """Show how far runs are that take their steps together; nothing where schedule or stages do not know how.

    :param prediction: the flow at step ``index`` (from 0) for the latents ``before`` it, one run after the other.
    """
    sigmas = getattr(schedule, "sigmas", None)
    if sigmas is None:
        return
    clean = before.float() - sigmas[index].to(before.device) * prediction.float()
    for place, (state, latents) in enumerate(zip(states, clean.chunk(len(states)), strict=True)):
        if state.picture is None:
            continue
        try:
            frames = state.picture(state, latents)
        except Exception as error:  # no run fails for want of memory for a picture on the way
            if not is_out_of_memory(error):
                raise
            logger.debug("there is no memory for a preview", exc_info=True)
            return
        control.preview(frames, place)
