"""LoRA adapters: merged into the weights of the denoisers, and taken out again exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .config import LORA_GROUP, LORA_SERVER_GROUP
from .transform import LoraTransform

if TYPE_CHECKING:
    from sglang_core import OptionGroup, PipelineTransform, PluginManager


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add the adapters, and where clients of a server may take some from."""
    return [LORA_GROUP, LORA_SERVER_GROUP]


@hookimpl
def sglang_register_pipeline_transforms(manager: PluginManager) -> list[PipelineTransform]:
    """Add the transform."""
    return [LoraTransform(manager)]
