"""Pipelines of diffusers that do something else with the same components: start from an image, paint inside of a mask.

They are found by their names, as diffusers names them all over: ``FluxPipeline``, ``FluxImg2ImgPipeline``,
``FluxInpaintPipeline``. Its own table of them (``AutoPipelineForInpainting``) can not be read without importing it all,
and lacks some.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from .pipeline_code import installed_pipeline

if TYPE_CHECKING:
    from sglang_core import ModelDescription

    from .pipeline_code import PipelineCode

Task = Literal["image", "mask"]

_ENDINGS: dict[Task, tuple[str, ...]] = {"image": ("Img2Img",), "mask": ("Inpaint", "Inpainting")}
_OWN_ENDING = re.compile("(Img2Img|Inpaint|Inpainting)?Pipeline$")
_NEEDED: dict[Task, frozenset[str]] = {
    "image": frozenset({"prompt", "image"}),
    "mask": frozenset({"prompt", "image", "mask_image"}),
}


def relative_of(model: ModelDescription, task: Task) -> PipelineCode | None:
    """Return the code of the pipeline that does a task with the components of a model, if diffusers has one.

    One that needs more, another component or a control image, is none.
    """
    stem = _OWN_ENDING.sub("", model.pipeline_class)
    if stem == model.pipeline_class:
        return None
    for ending in _ENDINGS[task]:
        code = installed_pipeline(f"{stem}{ending}Pipeline")
        if code is None or not _NEEDED[task] <= set(code.parameters) or "control_image" in code.parameters:
            continue
        if code.components <= set(model.index) and set(code.required) <= _NEEDED[task]:
            return code
    return None
