"""``--enable-torch-compile``: compiles the blocks that a denoiser repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .config import TORCH_COMPILE_GROUP
from .transform import TorchCompile

if TYPE_CHECKING:
    from sglang_core import OptionGroup, PipelineTransform


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add the switch."""
    return [TORCH_COMPILE_GROUP]


@hookimpl
def sglang_register_pipeline_transforms() -> list[PipelineTransform]:
    """Add the transform."""
    return [TorchCompile()]
