"""What Wan 2.1 image-to-video models see of their first frame: the CLIP vision tower of transformers.

It runs once per clip, so an own one would gain nothing; transformers is imported only by models that have it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sglang_core import ModelLoadError, UnavailableError

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageEncoder(nn.Module):
    """An image to the second last hidden states of CLIP, one row for each patch and the class token."""

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__()
        self.model = model
        self._processor = processor

    @classmethod
    def from_folder(cls, folder: Path, dtype: torch.dtype) -> "ImageEncoder":
        """Read ``image_encoder`` and ``image_processor`` of a model's folder.

        :raises ModelLoadError: if a file can not be read, or the weights do not fit the configuration.
        :raises UnavailableError: if transformers is not installed.
        """
        try:
            from transformers import CLIPImageProcessor, CLIPVisionModel
        except ImportError as error:
            raise UnavailableError(
                "models with an image_encoder need transformers, which is not installed", "pip install transformers"
            ) from error
        try:
            model, found = CLIPVisionModel.from_pretrained(
                folder / "image_encoder", local_files_only=True, dtype=dtype, output_loading_info=True
            )
            processor = CLIPImageProcessor.from_pretrained(folder / "image_processor", local_files_only=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # foreign code on foreign files
            problem = f"image_encoder and image_processor of {folder} can not be read: {' '.join(str(error).split())}"
            raise ModelLoadError(problem, "download the model again, with both folders") from error
        missing = sorted(found["missing_keys"])
        if missing:  # transformers would draw them at random
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelLoadError(
                f"image_encoder (CLIPVisionModel) has no weight {missing[0]!r}{more}",
                "download the model again; the weights do not fit its configuration",
            )
        return cls(model.eval(), processor)

    def forward(self, image: "Image") -> torch.Tensor:
        """Return (1, image tokens, size)."""
        parameter = next(self.model.parameters())
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"]
        states = self.model(pixels.to(parameter.device, parameter.dtype), output_hidden_states=True).hidden_states
        second_last: torch.Tensor = states[-2]
        return second_last
