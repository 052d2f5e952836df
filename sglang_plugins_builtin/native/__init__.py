"""The native backend: a staged engine of our own, and the model families it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .backend import NativeBackend
from .config import CUDA_GRAPHS_GROUP
from .cuda_graphs import CudaGraphs
from .qwen_image.family import QwenImageFamily
from .wan.family import WanFamily

if TYPE_CHECKING:
    from sglang_core import ExecutionBackend, ModelFamily, OptionGroup, PipelineTransform, PluginManager


@hookimpl
def sglang_register_options() -> list[OptionGroup]:
    """Add the switch for recorded steps."""
    return [CUDA_GRAPHS_GROUP]


@hookimpl
def sglang_register_execution_backends(manager: PluginManager) -> list[ExecutionBackend]:
    """Add ``--backend sglang``."""
    return [NativeBackend(manager)]


@hookimpl
def sglang_register_model_families() -> list[ModelFamily]:
    """Add Qwen-Image and Wan."""
    return [QwenImageFamily(), WanFamily()]


@hookimpl
def sglang_register_pipeline_transforms() -> list[PipelineTransform]:
    """Add recorded steps."""
    return [CudaGraphs()]
