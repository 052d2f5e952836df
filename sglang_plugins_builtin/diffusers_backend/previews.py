"""Pictures between two steps: what the scheduler takes the clean latents for, through the pipeline's own VAE.

Only what is known to be right is shown: a scheduler that tells its estimate or steps along a flow, and latents in a
form whose way to the VAE is known. For everything else there is no preview.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sglang_core import GenerationRequest

logger = logging.getLogger(__name__)

Frames = np.ndarray[Any, np.dtype[np.uint8]]
#: Returns the estimate of the clean latents, if there is one.
Estimate = Callable[[], "torch.Tensor | None"]


def estimate_of(scheduler: Any, arguments: tuple[Any, ...], result: Any) -> Estimate:
    """Return how to get the estimate of the clean latents after a step; nothing is computed yet.

    :param scheduler: that has just made the step.
    :param arguments: of the step by position: what the model predicts, the timestep, and the noisy latents.
    :param result: of the step.
    """
    step_index = getattr(scheduler, "step_index", None)  # counted up by the step

    def estimate() -> torch.Tensor | None:
        told = getattr(result, "pred_original_sample", None)
        if told is None and isinstance(result, tuple) and len(result) > 1:
            told = result[1]
        if isinstance(told, torch.Tensor):
            return told
        sigmas = getattr(scheduler, "sigmas", None)
        if not step_index or sigmas is None or len(arguments) < 3 or not _follows_flow(scheduler):
            return None
        prediction, sample = arguments[0], arguments[2]
        clean: torch.Tensor = sample.float() - sigmas[step_index - 1].to(sample.device) * prediction.float()
        return clean

    return estimate


def _follows_flow(scheduler: Any) -> bool:
    """Say whether the model predicts the flow from the clean latents to the noise."""
    config = scheduler.config
    if config.get("prediction_type") == "flow_prediction":
        return True
    return "FlowMatch" in type(scheduler).__name__ and not config.get("invert_sigmas")


def show(pipeline: Any, request: GenerationRequest, estimate: Estimate) -> Frames | None:
    """Return a picture of an estimate, uint8 (1, height, width, 3); ``None`` if there is none."""
    try:
        clean = estimate()
        return None if clean is None else preview_frames(pipeline, request, clean)
    except Exception:  # pipelines are foreign code, and a run does not fail for a picture on the way
        logger.debug("no preview of %s", type(pipeline).__name__, exc_info=True)
        return None


def preview_frames(pipeline: Any, request: GenerationRequest, clean: torch.Tensor) -> Frames | None:
    """Return one frame, uint8 (1, height, width, 3), of the first sample; ``None`` if it is not known how."""
    vae = getattr(pipeline, "vae", None)
    latents = _as_vae_takes_them(pipeline, vae, request, clean[:1])
    if vae is None or latents is None:
        return None
    dtype = next(vae.parameters()).dtype
    with torch.no_grad():
        decoded = vae.decode(latents.to(dtype), return_dict=False)[0]
    picture = decoded[0] if decoded.dim() == 4 else decoded[0, :, 0]  # (3, height, width)
    if picture.shape[0] != 3 or not bool(torch.isfinite(picture).all()):
        return None
    values = (picture.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    frames: Frames = values.permute(1, 2, 0)[None].cpu().numpy()
    return frames


def _as_vae_takes_them(pipeline: Any, vae: Any, request: GenerationRequest, clean: torch.Tensor) -> torch.Tensor | None:
    """Return latents (1, channels, [1,] height, width) in the VAE's own scale: of a clip those of its first frame."""
    config = getattr(vae, "config", None)
    if config is None:
        return None
    if clean.dim() == 3:
        unpack, factor = getattr(pipeline, "_unpack_latents", None), getattr(pipeline, "vae_scale_factor", None)
        if unpack is None or factor is None or request.height is None or request.width is None:
            return None
        clean = unpack(clean, request.height, request.width, factor)
    if clean.dim() == 5:
        clean = clean[:, :, :1]
    mean, std, scale = (config.get(name) for name in ("latents_mean", "latents_std", "scaling_factor"))
    if mean is not None and std is not None and len(mean) == clean.shape[1]:
        shape = (1, -1, *(1,) * (clean.dim() - 2))
        return clean * clean.new_tensor(std).view(shape) / (scale or 1.0) + clean.new_tensor(mean).view(shape)
    return None if scale is None else clean / scale + (config.get("shift_factor") or 0.0)
