"""From what a pipeline returns to frames and sound in host memory."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sglang_core import ExecutionPlan, GeneratedMedia, GenerationRequest, RequestError

logger = logging.getLogger(__name__)

_PICTURES = ("frames", "videos", "video", "images", "image")
_SOUND = ("audio", "audios", "sound")
_RATE_KEYS = ("output_sampling_rate", "sampling_rate", "sample_rate")
Frames = np.ndarray[Any, np.dtype[np.uint8]]


def to_media(result: Any, pipeline: Any, plan: ExecutionPlan, request: GenerationRequest) -> GeneratedMedia:
    """Turn the result of one call into media.

    :raises RequestError: if it holds no pictures, or values that are none.
    """
    frames = _to_uint8(_first_of(_member(result, _PICTURES), plan), plan)
    sound, rate = _sound(result, pipeline)
    is_video = plan.kind == "video"
    return GeneratedMedia(
        kind=plan.kind,
        frames=frames,
        fps=float(request.fps) if is_video and request.fps else None,
        audio=sound,
        sample_rate_hz=rate,
    )


def _member(result: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        value = getattr(result, name, None)
        if value is not None:
            return value
    if isinstance(result, tuple | list) and names is _PICTURES and result:
        return result[0]
    return result if names is _PICTURES else None


def _first_of(pictures: Any, plan: ExecutionPlan) -> Any:
    """Return what belongs to the first, and only, item of the batch: (frames, height, width, channels) or a list."""
    if isinstance(pictures, torch.Tensor):
        # (batch, [frames,] channels, height, width)
        pictures = pictures.detach().to("cpu", torch.float32).movedim(-3, -1).numpy()
    if isinstance(pictures, np.ndarray):
        if pictures.ndim == 5 or (pictures.ndim == 4 and plan.kind == "image" and len(pictures) == 1):
            return pictures[0]
        return pictures
    if isinstance(pictures, list | tuple) and len(pictures) == 1:
        return _first_of(pictures[0], plan) if isinstance(pictures[0], list | tuple) else pictures[0]
    return pictures


def _to_uint8(pictures: Any, plan: ExecutionPlan) -> Frames:
    """Return uint8 (frames, height, width, 3 or 4), rounded as diffusers rounds when it makes PIL images."""
    if isinstance(pictures, torch.Tensor):
        pictures = pictures.detach().to("cpu", torch.float32).movedim(-3, -1).numpy()
    if isinstance(pictures, list | tuple) and pictures:
        return np.concatenate([_to_uint8(picture, plan) for picture in pictures])
    if hasattr(pictures, "convert"):  # a PIL image
        pictures = np.asarray(pictures if pictures.mode in {"RGB", "RGBA"} else pictures.convert("RGB"))
    if not isinstance(pictures, np.ndarray) or pictures.ndim not in (2, 3, 4):
        raise RequestError(
            f"{plan.model.pipeline_class} returned {type(pictures).__name__}, not pictures",
            "choose a pipeline that makes pictures or clips",
        )
    if pictures.ndim == 2:
        pictures = pictures[..., None]
    if pictures.ndim == 3:
        pictures = pictures[None]
    if pictures.shape[-1] == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    return pictures if pictures.dtype == np.uint8 else _quantised(pictures, plan)


def _quantised(pictures: np.ndarray[Any, Any], plan: ExecutionPlan) -> Frames:
    if not np.isfinite(pictures).all():
        used = sorted({c.precision.value for c in plan.components.values() if c.precision.value})
        raise RequestError(
            f"{plan.model.pipeline_class} made values that are not numbers, in precision {', '.join(used) or 'fp32'}",
            "use another precision: --precision fp32, or --vae-precision fp32",
        )
    rounded: Frames = (pictures * 255).round().clip(0, 255).astype(np.uint8)
    return rounded


def _sound(result: Any, pipeline: Any) -> tuple[np.ndarray[Any, np.dtype[np.float32]] | None, int | None]:
    """Return float32 (channels, samples) in [-1, 1] and its rate in Hz, if the pipeline makes sound."""
    sound = _member(result, _SOUND)
    if sound is None:
        return None, None
    rate = _sample_rate(pipeline)
    if rate is None:
        logger.warning("the sound is lost: no component of %s tells its sample rate", type(pipeline).__name__)
        return None, None
    values = sound.detach().to("cpu", torch.float32).numpy() if isinstance(sound, torch.Tensor) else np.asarray(sound)
    values = values[0] if values.ndim == 3 else values
    values = values[None] if values.ndim == 1 else values
    return np.nan_to_num(values.astype(np.float32)).clip(-1.0, 1.0), rate


def _sample_rate(pipeline: Any) -> int | None:
    for name in ("vocoder", "audio_vae", "audio_tokenizer", "feature_extractor"):
        config = getattr(pipeline.components.get(name), "config", None)
        for key in _RATE_KEYS:
            value = config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
            if value:
                return int(value)
    return None
