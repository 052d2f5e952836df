"""The native backend: a staged engine of our own, and the model families it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import hookimpl

from .backend import NativeBackend
from .qwen_image.family import QwenImageFamily
from .wan.family import WanFamily

if TYPE_CHECKING:
    from sglang_core import ExecutionBackend, ModelFamily, PluginManager


@hookimpl
def sglang_register_execution_backends(manager: PluginManager) -> list[ExecutionBackend]:
    """Add ``--backend sglang``."""
    return [NativeBackend(manager)]


@hookimpl
def sglang_register_model_families() -> list[ModelFamily]:
    """Add Qwen-Image and Wan."""
    return [QwenImageFamily(), WanFamily()]
