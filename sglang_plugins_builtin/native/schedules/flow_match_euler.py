"""Noise levels and Euler steps of flow matching.

"Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (arXiv:2403.03206) has the shift of the noise
levels by resolution.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from .levels import Levels, shifted, stretched
from .settings import FlowMatchEulerSettings


class FlowMatchEuler:
    """One run with Euler steps: along the predicted flow, from each noise level to the next.

    :ivar timesteps: what the transformer is told at each step, float32 (steps,), on the given device.
    :ivar sigmas: noise levels, float32 (steps + 1,), beside them; the last one is 0.
    """

    def __init__(self, sigmas: torch.Tensor, num_train_timesteps: int = 1000) -> None:
        self._num_train_timesteps = num_train_timesteps
        self.timesteps = sigmas * num_train_timesteps
        self.sigmas = torch.cat((sigmas, sigmas.new_zeros(1)))

    def __len__(self) -> int:
        return len(self.timesteps)

    def step(self, prediction: torch.Tensor, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents after step ``index`` (from 0), of the shape and dtype of ``latents``.

        The update is made in the wider of the two dtypes, then added in float32: where prediction and latents are of
        one dtype that is what diffusers does, and a prediction of less precision than the latents is not rounded again.
        """
        difference = self.sigmas[index + 1] - self.sigmas[index]
        wider = torch.promote_types(prediction.dtype, latents.dtype)
        return (latents.float() + difference * prediction.to(wider)).to(latents.dtype)

    def since(self, first: int) -> "FlowMatchEuler":
        """Return the schedule of a run that begins with step ``first`` of this one."""
        return FlowMatchEuler(self.sigmas[first:-1], self._num_train_timesteps)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return clean latents as they are before step ``index``; behind the last step they stay clean."""
        sigma = self.sigmas[index].to(clean.device, clean.dtype)
        return sigma * noise + (1.0 - sigma) * clean


def start_euler(
    settings: FlowMatchEulerSettings,
    num_steps: int,
    num_image_tokens: int | None,
    sigmas: Sequence[float] | None,
    device: torch.device | str,
) -> FlowMatchEuler:
    """Return the schedule of one run; see :meth:`FlowMatchEulerSettings.start`."""
    levels: Levels = _over_training(settings, num_steps) if sigmas is None else np.asarray(sigmas, dtype=np.float32)
    if settings.use_dynamic_shifting:
        mu = _dynamic_shift(settings, num_image_tokens)
        factor = math.exp(mu) if settings.time_shift_type == "exponential" else mu
        levels = factor / (factor + (1 / levels - 1))
    else:
        levels = shifted(levels, settings.shift)
    if settings.shift_terminal:
        levels = stretched(levels, settings.shift_terminal)
    return FlowMatchEuler(torch.from_numpy(levels).to(device, torch.float32), settings.num_train_timesteps)


def _over_training(settings: FlowMatchEulerSettings, num_steps: int) -> Levels:
    """Return levels over the range of training, evenly spaced.

    The ends of the range are shifted levels already, and all levels are shifted again: models are tuned to it.
    """
    ends: Levels = np.array([1.0, 1 / settings.num_train_timesteps], dtype=np.float32)
    if not settings.use_dynamic_shifting:
        ends = shifted(ends, settings.shift)
    return np.linspace(float(ends[0]), float(ends[1]), num_steps)


def _dynamic_shift(settings: FlowMatchEulerSettings, num_image_tokens: int | None) -> float:
    assert num_image_tokens is not None, "families without it refuse dynamic shifting"
    slope = (settings.max_shift - settings.base_shift) / (settings.max_image_seq_len - settings.base_image_seq_len)
    return num_image_tokens * slope + (settings.base_shift - slope * settings.base_image_seq_len)
