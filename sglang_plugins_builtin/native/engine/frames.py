"""From images to tensors, and from decoded tensors to the frames the host takes."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from sglang_core import GeneratedMedia, MediaKind

if TYPE_CHECKING:
    from PIL.Image import Image


def scaled(image: "Image", size: tuple[int, int]) -> "Image":
    """Return an image at another ``size`` (width and height), not keeping its shape."""
    from PIL.Image import Resampling

    return image.resize(size, Resampling.LANCZOS)


def to_pixels(image: "Image") -> torch.Tensor:
    """Return an RGB image as float32 (1, 3, height, width) in [-1, 1]."""
    values = torch.from_numpy(np.asarray(image).astype(np.float32) / 255.0)
    return (2.0 * values - 1.0).permute(2, 0, 1)[None]


def to_media(decoded: torch.Tensor, kind: MediaKind, fps: float | None = None) -> GeneratedMedia:
    """Return the frames of one output.

    :param decoded: floating point (3 or 4 channels, frames, height, width) in [-1, 1].
    """
    # As the image processors of diffusers: to [0, 1] in float32, then rounded to the nearest of 256 levels.
    # In place: a clip in float32 is large, and one copy of it is enough.
    values = (decoded.float() / 2).add_(0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    frames = values.permute(1, 2, 3, 0).cpu().contiguous().numpy()
    return GeneratedMedia(kind=kind, frames=frames, fps=fps)
