"""From files to a pipeline: one module, three stages of our own, and the engine's loop."""

from pathlib import Path

import torch

from sglang_core import AttentionOf, ExecutionPlan, OffloadOptions, StepControl
from sglang_plugins_builtin.native.engine import Denoise, Residency, Stage, StagedPipeline, dtype_of, read_weights

from .family import MosaicSizes
from .stages import DecodeTiles, EncodePrompt, PrepareTiles
from .transformer import MosaicTransformer


def load_mosaic(plan: ExecutionPlan, folder: Path, control: StepControl, attention_of: AttentionOf) -> StagedPipeline:
    """Read the weights as the plan says and compose the stages.

    :raises ModelLoadError: if the files cannot be used.
    """
    residency = Residency(torch.device(plan.device.value), pins=plan.settings.of(OffloadOptions).pin_cpu_memory)
    with control.stage("load", 1, "component"):
        transformer = MosaicTransformer(
            MosaicSizes.of(plan.model),
            attention_of("transformer", "self").attention,
            attention_of("transformer", "cross").attention,
        )
        described = plan.model.components["transformer"]
        read_weights(transformer, described, folder, dtype=dtype_of(plan, "transformer"))
        # without layers to stream, since prepare_text() uses them outside of forward(): the component moves as a whole
        residency.place("transformer", transformer, plan.components["transformer"].residency.value)
        control.step("load", 1, 1, "component")
    stages: list[Stage] = [
        EncodePrompt(transformer, residency),
        PrepareTiles(transformer, residency),
        Denoise(),
        DecodeTiles(),
    ]
    return StagedPipeline(plan, stages, {"transformer": transformer}, residency)
