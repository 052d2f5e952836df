"""Compiles the denoisers of a loaded pipeline, block by block where they repeat."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from sglang_core import Availability, UnavailableError, diffusion_cache

from .config import TorchCompileOptions

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from sglang_core import ExecutionPlan, LoadedPipeline

logger = logging.getLogger(__name__)

_DENOISERS = ("transformer", "unet", "prior", "decoder")


class TorchCompile:
    """Marks modules for compilation; torch compiles each on its first call.

    A repeated block is compiled once and reused for all its copies, which takes a fraction of the time of the whole
    model and loses little speed. A module names the classes of its blocks by ``_repeated_blocks``, as those of
    diffusers do. What was compiled is kept in the user's cache, so that the next process begins with it.
    """

    name = "torch-compile"
    order = 900  # last: what other transforms change is compiled too

    def probe(self) -> Availability:
        """Say whether torch and, where it is needed, a C++ compiler are there."""
        if importlib.util.find_spec("torch") is None:
            return Availability.no("torch is not installed", 'pip install "sglang-plugins[diffusers]"')
        if sys.platform == "win32" and shutil.which("cl") is None:
            return Availability.no("torch.compile needs a C++ compiler", "install Visual Studio's build tools")
        if sys.platform != "win32" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            return Availability.no("torch.compile needs a C++ compiler", "install g++ or clang")
        return Availability.yes()

    def wanted(self, plan: ExecutionPlan) -> str | None:
        """Return the setting that asks for it."""
        if not plan.settings.of(TorchCompileOptions).enable_torch_compile:
            return None
        return plan.settings.origin("enable_torch_compile").label

    def apply(self, pipeline: LoadedPipeline, plan: ExecutionPlan) -> None:
        """Mark the denoisers.

        :raises UnavailableError: if the pipeline has none.
        """
        denoisers = {name: module for name, module in pipeline.components.items() if _is_denoiser(name, module)}
        if not denoisers:
            label = plan.settings.origin("enable_torch_compile").label
            problem = f"{label} does not apply: {plan.model.reference} has no denoiser to compile"
            raise UnavailableError(problem, "leave it out")
        _keep_compiled_code(os.environ)
        from sglang_core import InterleavingPipeline  # only where something is loaded

        if isinstance(pipeline, InterleavingPipeline):
            # What is compiled for one size may be used for another, with other rounding: not in the middle of a run.
            pipeline.can_interleave = False
        for name, module in denoisers.items():
            logger.info("compiling %s (%s) on its first call", name, _compile(module))


def _is_denoiser(name: str, module: Any) -> bool:
    return name.startswith(_DENOISERS) and hasattr(module, "compile") and hasattr(module, "parameters")


def _compile(module: Any) -> str:
    """Mark one module and say what of it."""
    names = getattr(module, "_repeated_blocks", None) or ()
    blocks = [child for child in module.modules() if type(child).__name__ in names]
    for block in blocks:
        block.compile()
    if blocks:
        return f"repeated blocks {', '.join(names)}"
    module.compile()
    return "the whole module"


def _keep_compiled_code(environ: MutableMapping[str, str]) -> None:
    """Let torch keep what it compiles among the user's caches, for the next process; a choice of the user wins.

    Its own default is a folder that all users share.
    """
    environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(diffusion_cache(environ) / "compiled"))
