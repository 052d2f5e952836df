"""What processors of transformers need, read from their sources without importing them."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import Availability

if TYPE_CHECKING:
    from sglang_core import ModelDescription


def probe_processors(model: ModelDescription) -> Availability:
    """Say whether what prepares text and images for a model can be loaded.

    A processor that takes clips too has a video processor, which transformers has for torchvision alone, and loads also
    where only images are given to it.
    """
    if importlib.util.find_spec("torchvision") is not None:
        return Availability.yes()
    for component in model.components.values():
        if component.library == "transformers" and _takes_clips(component.class_name):
            return Availability.no(
                f"{component.name} of {model.reference} ({component.class_name} of transformers) needs torchvision, "
                "which is not installed",
                "pip install torchvision, or use --backend sglang, which does without where it runs the model",
            )
    return Availability.yes()


@cache
def _takes_clips(class_name: str) -> bool:
    """Say whether a class of transformers is made with a video processor."""
    spec = importlib.util.find_spec("transformers")
    if not class_name.endswith("Processor") or spec is None or not spec.submodule_search_locations:
        return False
    models = Path(next(iter(spec.submodule_search_locations))) / "models"
    name = _plain(class_name.removesuffix("Processor"))
    definition = re.compile(rf"^class {re.escape(class_name)}\b.*?def __init__\((.*?)\)", re.MULTILINE | re.DOTALL)
    for path in models.glob("*/processing_*.py"):
        if _plain(path.parent.name) == name:
            found = definition.search(path.read_text(encoding="utf-8"))
            return found is not None and "video_processor" in found.group(1)
    return False


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
