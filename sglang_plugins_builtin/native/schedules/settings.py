"""What ``scheduler_config.json`` says about noise levels and steps. Nothing of torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    import torch

    from .flow_match_euler import FlowMatchEuler
    from .unipc import UniPCSchedule


@frozen(kw_only=True)
class FlowMatchEulerSettings:
    """Euler steps on flow matching: ``FlowMatchEulerDiscreteScheduler`` of diffusers, whose names these are."""

    num_train_timesteps: int = 1000
    #: How noise levels are pulled towards noise, without dynamic shifting.
    shift: float = 1.0
    #: Whether the shift depends on the number of image tokens instead: between two given points, on a line.
    use_dynamic_shifting: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    time_shift_type: Literal["exponential", "linear"] = "exponential"
    #: The last noise level before zero, to which the others are stretched.
    shift_terminal: float | None = None

    def start(
        self,
        num_steps: int,
        *,
        num_image_tokens: int | None = None,
        sigmas: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> FlowMatchEuler:
        """Return the schedule of one run.

        :param num_image_tokens: of the image that is made; dynamic shifting needs it.
        :param sigmas: noise levels before shifting, one for each step, in place of levels over the range of training.
        :raises RequestError: if the steps are too few for ``shift_terminal``.
        """
        from .flow_match_euler import start_euler  # numpy and torch, which planning does without

        return start_euler(self, num_steps, num_image_tokens, sigmas, device)


@frozen(kw_only=True)
class Solver:
    """How UniPC makes its steps."""

    order: int = 2
    #: ``bh1`` or ``bh2``: how the length of a step enters.
    type: str = "bh2"
    #: Lower the order towards the end; the very last step has order 1.
    lowers_order_at_end: bool = True
    #: Steps (from 0) after which the prediction does not correct the step that led to it.
    uncorrected: Sequence[int] = ()


@frozen(kw_only=True)
class UniPCSettings:
    """The multistep solver UniPC: ``UniPCMultistepScheduler`` of diffusers on flow models."""

    num_train_timesteps: int = 1000
    solver: Solver = Solver()
    flow_shift: float = 1.0
    #: Stretches the noise levels to end here, if set.
    shift_terminal: float | None = None
    final_sigmas_type: str = "zero"

    def start(self, num_steps: int, *, flow_shift: float | None = None) -> UniPCSchedule:
        """Return the schedule of one run.

        :param flow_shift: in place of the model's own; larger spends more steps at high noise.
        :raises RequestError: if the steps are too few for ``shift_terminal``.
        """
        from .unipc import start_unipc  # numpy and torch, which planning does without

        return start_unipc(self, num_steps, self.flow_shift if flow_shift is None else flow_shift)


#: What a model's scheduler can be.
ScheduleSettings = FlowMatchEulerSettings | UniPCSettings
