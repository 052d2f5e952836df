"""Compiles the denoisers of a loaded pipeline, block by block where they repeat."""

import importlib.util
import logging
import shutil
import sys
from typing import Any

from sglang_core import Availability, ExecutionPlan, LoadedPipeline, UnavailableError

from .config import TorchCompileOptions

logger = logging.getLogger(__name__)

_DENOISERS = ("transformer", "unet", "prior", "decoder")


class TorchCompile:
    """Marks modules for compilation; torch compiles each on its first call.

    A repeated block is compiled once and reused for all its copies, which takes a fraction of the time of the whole
    model and loses little speed (``compile_repeated_blocks`` of diffusers).
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
        for name, module in denoisers.items():
            logger.info("compiling %s (%s) on its first call", name, _compile(module))


def _is_denoiser(name: str, module: Any) -> bool:
    return name.startswith(_DENOISERS) and hasattr(module, "compile") and hasattr(module, "parameters")


def _compile(module: Any) -> str:
    """Mark one module and say what of it."""
    names = getattr(module, "_repeated_blocks", None) or ()
    if any(type(child).__name__ in names for child in module.modules()):
        module.compile_repeated_blocks()
        return f"repeated blocks {', '.join(names)}"
    module.compile()
    return "the whole module"
