"""Qwen2.5-VL with its eyes, for the models that edit images: prompts with images in them to hidden states.

The language model is our own (see ``text_encoder``); the vision tower and the preparation of its pixels are those of
transformers, which is imported for these models only: they run once per image, so own ones would gain nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import nn

from sglang_core import Attention, ModelLoadError, RequestError, UnavailableError

from .configs import TextEncoderConfig
from .text_encoder import Qwen2TextEncoder, rename_text_weight

if TYPE_CHECKING:
    from PIL.Image import Image

#: How much longer than wide an image may be; the processor of transformers refuses others.
_MAX_RATIO = 200
_VISION_PREFIXES = ("visual.", "model.visual.")


@frozen(eq=False)
class SeenImage:
    """What the vision tower made of an image: one row (rows * columns, hidden_size) for each of its tokens."""

    states: torch.Tensor
    rows: int
    columns: int


class VisionLanguageEncoder(nn.Module):
    """Prompts with images to hidden states. Parameters are empty until weights are read by name."""

    def __init__(self, config: Mapping[str, Any], attention: Attention) -> None:
        super().__init__()
        language = TextEncoderConfig.from_json(config)
        _check_sections(language)
        self.language = Qwen2TextEncoder(language, attention)
        self.visual = _vision_tower(config.get("vision_config") or {})

    def see(self, patches: torch.Tensor, grids: Sequence[tuple[int, int]]) -> list[SeenImage]:
        """Return what each image is to the language model.

        :param patches: of all images, (patches, values), in the order of the image processor.
        :param grids: rows and columns of patches of each image.
        """
        device, dtype = self.language.norm.weight.device, self.language.norm.weight.dtype
        merge = int(self.visual.spatial_merge_size)
        seen = self.visual(patches.to(device, dtype), grid_thw=torch.tensor([(1, *grid) for grid in grids]).to(device))
        sizes = [(rows // merge, columns // merge) for rows, columns in grids]
        states = seen.pooler_output.split([rows * columns for rows, columns in sizes])
        return [SeenImage(each, *size) for each, size in zip(states, sizes, strict=True)]

    def encode(self, tokens: Sequence[int], images: Sequence[SeenImage], image_token: int) -> torch.Tensor:
        """Return the hidden states (tokens, hidden_size) of one prompt.

        :param tokens: with ``image_token`` once for each of ``images``: it is replaced by the tokens of the image.
        """
        device = self.language.norm.weight.device
        waiting = iter(images)
        embedded, positions, start = [], [], 0
        for run, is_image in _runs(tokens, image_token):
            if is_image:
                image = next(waiting)
                grid = torch.cartesian_prod(torch.arange(image.rows), torch.arange(image.columns)).T
                positions.append(start + torch.cat((torch.zeros_like(grid[:1]), grid)))
                embedded.append(image.states)
                start += max(image.rows, image.columns)
            else:
                positions.append(torch.arange(start, start + len(run)).expand(3, -1))
                embedded.append(self.language.embed_tokens(torch.tensor(run, device=device)))
                start += len(run)
        return self.language.decode(torch.cat(embedded)[None], torch.cat(positions, dim=1).to(device))[0]

    def streamed_layers(self) -> list[nn.Module]:
        """Return what may come to the device one after the other, in the order of use."""
        return [*self.visual.blocks, *self.language.streamed_layers()]

    def prepare(self) -> None:
        """Pack the weights for speed, once, after loading and after everything that changes weights by name."""
        self.language.prepare()


def rename_weight(stored: str) -> str | None:
    """Return the name that ``VisionLanguageEncoder`` has for a stored weight; ``None`` for what it does not read."""
    for prefix in _VISION_PREFIXES:
        if stored.startswith(prefix):
            return f"visual.{stored.removeprefix(prefix)}"
    renamed = rename_text_weight(stored)
    return None if renamed is None else f"language.{renamed}"


class ImagePatches:
    """Images to the patches that the vision tower takes, as the model's processor cuts them."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    @classmethod
    def from_folder(cls, folder: Path) -> "ImagePatches":
        """Read the image part of the ``processor`` folder.

        :raises ModelLoadError: if it can not be read.
        :raises UnavailableError: if transformers is not installed.
        """
        _require_transformers()
        from transformers import AutoImageProcessor

        try:
            return cls(AutoImageProcessor.from_pretrained(folder, local_files_only=True))
        except (OSError, ValueError) as error:
            problem = f"{folder} holds no image processor: {' '.join(str(error).split())}"
            raise ModelLoadError(problem, "download the model again, with its processor folder") from error

    def __call__(self, images: "Sequence[Image]") -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """Return the patches (patches, values) of all images, and rows and columns of patches of each.

        :raises RequestError: if an image is too narrow.
        """
        for image in images:
            if max(image.size) > _MAX_RATIO * min(image.size):
                problem = f"an image is more than {_MAX_RATIO} times as long as it is wide, which the model can not see"
                raise RequestError(problem, "cut it to another shape")
        cut = self._processor(images=list(images), return_tensors="pt")
        return cut["pixel_values"], [(int(rows), int(columns)) for _, rows, columns in cut["image_grid_thw"]]


def _runs(tokens: Sequence[int], image_token: int) -> list[tuple[list[int], bool]]:
    """Cut ``tokens`` at images: runs of text, and for each image one of its token alone."""
    runs: list[tuple[list[int], bool]] = []
    for token in tokens:
        if token == image_token or not runs or runs[-1][1]:
            runs.append(([], token == image_token))
        runs[-1][0].append(token)
    return runs


def _check_sections(config: TextEncoderConfig) -> None:
    half = config.hidden_size // config.num_attention_heads // 2
    if sum(config.mrope_section) != half:
        raise ModelLoadError(
            f"text_encoder/config.json: mrope_section {list(config.mrope_section)} does not add up to {half}, "
            "half the size of a head",
            "download the model again",
        )


def _vision_tower(config: Mapping[str, Any]) -> Any:
    _require_transformers()
    from transformers.initialization import no_init_weights
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    with no_init_weights():  # the weights are read afterwards
        return Qwen2_5_VisionTransformerPretrainedModel._from_config(Qwen2_5_VLVisionConfig(**config)).eval()


def _require_transformers() -> None:
    try:
        import transformers  # noqa: F401  # seconds, so only for these models
    except ImportError as error:
        raise UnavailableError(
            "models that edit images need transformers, which is not installed", "pip install transformers"
        ) from error
