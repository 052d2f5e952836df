"""The family as the host sees it while planning: light, nothing of torch is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from sglang_core import AttentionNeed, Availability, CallDescription, ModelDescription, ModelLoadError, Settings

if TYPE_CHECKING:
    from sglang_core import AttentionOf, ExecutionPlan, LoadedPipeline, StepControl

PIPELINE_CLASS = "MosaicPipeline"
TRANSFORMER_CLASS = "MosaicTransformer"
#: Pixels of a tile's side.
TILE_SIZE = 8


@frozen(kw_only=True)
class MosaicSizes:
    """The sizes in ``transformer/config.json``."""

    num_heads: int
    head_dim: int
    num_layers: int

    @property
    def width(self) -> int:
        """Return the channels of a token."""
        return self.num_heads * self.head_dim

    @classmethod
    def of(cls, model: ModelDescription) -> "MosaicSizes":
        """Read the configuration, which may hold anything.

        :raises ModelLoadError: if a size is missing or no positive whole number.
        """
        config = model.components["transformer"].config
        sizes = {}
        for name in ("num_heads", "head_dim", "num_layers"):
            value = config.get(name)
            if type(value) is not int or value < 1:
                problem = f"transformer/config.json: {name} is no positive whole number: {value!r}"
                raise ModelLoadError(problem, "download the model again")
            sizes[name] = value
        return cls(**sizes)


class MosaicFamily:
    """Denoises the colours of tiles."""

    name = "mosaic"
    pipeline_classes = (PIPELINE_CLASS,)

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether the model has the one component that is needed."""
        transformer = model.components.get("transformer")
        if transformer is None or transformer.class_name != TRANSFORMER_CLASS:
            return Availability.no(f"{model.reference} has no {TRANSFORMER_CLASS}", "download the model again")
        return Availability.yes()

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what a request may ask for; everything else is refused by the host."""
        return CallDescription(
            kind="image",
            parameters={"prompt": None, "width": 128, "height": 128, "num_inference_steps": 8},
            required=("prompt",),
            multiple_of=TILE_SIZE,
        )

    def attention_needs(self, model: ModelDescription) -> Mapping[str, AttentionNeed]:
        """Say what attention has to compute, so that the host can choose a backend for each role."""
        sizes = MosaicSizes.of(model)
        return {
            "transformer.self": AttentionNeed(head_dim=sizes.head_dim, num_heads=sizes.num_heads),
            "transformer.cross": AttentionNeed(head_dim=sizes.head_dim, num_heads=sizes.num_heads, is_cross=True),
        }

    def load(
        self, plan: "ExecutionPlan", folder: Path, control: "StepControl", attention_of: "AttentionOf"
    ) -> "LoadedPipeline":
        """Read the weights.

        :raises ModelLoadError: if the files cannot be used.
        """
        from .loading import load_mosaic  # torch: seconds, so only here

        return load_mosaic(plan, folder, control, attention_of)
