"""From a Qwen-Image folder to its stages. Heavy: torch is imported here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sglang_core import AttentionOf, ComponentDescription, ExecutionOptions, ExecutionPlan, StepControl

from ..causal_vae.config import CausalVaeConfig, Tiling
from ..causal_vae.model import CausalVae
from ..engine import (
    Decode,
    Denoise,
    EncodePrompts,
    Residency,
    Stage,
    StagedPipeline,
    dtype_of,
    load_components,
    read_weights,
    residency_of,
)
from ..schedules.reading import load_schedule
from .configs import QwenImageTransformerConfig, TextEncoderConfig
from .family import EDIT_PLUS, takes_image
from .prompts import EDIT as EDIT_TEMPLATE
from .prompts import EDIT_PLUS as EDIT_PLUS_TEMPLATE
from .stages import PreparePicture, encode_prompt, is_guided, unpacked
from .start_stages import EncodeStart
from .text_encoder import Qwen2TextEncoder, rename_text_weight
from .tokenizer import Qwen2Tokenizer
from .transformer import QwenImageTransformer


def load_qwen_image(
    plan: ExecutionPlan, folder: Path, control: StepControl, attention_of: AttentionOf
) -> StagedPipeline:
    """Read every component as the plan says and compose the stages.

    :raises ModelLoadError: if the files cannot be used.
    """
    described = plan.model.components
    residency = residency_of(plan)
    makers: dict[str, Callable[[], Any]] = {
        "tokenizer": lambda: Qwen2Tokenizer.from_folder(folder / "tokenizer"),
        "scheduler": lambda: load_schedule(described["scheduler"], shifts_by_size=True),
        "text_encoder": lambda: _text_encoder(plan, folder, described["text_encoder"], attention_of),
        "transformer": lambda: _transformer(plan, folder, described["transformer"], attention_of),
        "vae": lambda: _vae(plan, folder, described["vae"], with_encoder=takes_image(plan.model)),
    }
    if takes_image(plan.model):
        makers["processor"] = lambda: _patches(folder)
    components = load_components(plan, makers, residency, control)
    can_mask = attention_of("transformer", "self").capabilities.has_masks
    return StagedPipeline(plan, _stages(plan, folder, components, residency, can_mask), components, residency)


def _stages(
    plan: ExecutionPlan, folder: Path, components: dict[str, Any], residency: Residency, can_mask: bool
) -> list[Stage]:
    vae: CausalVae = components["vae"]
    tiling = Tiling() if plan.settings.of(ExecutionOptions).vae_tiling else None
    return [
        *_conditions(plan, folder, components, residency, tiling),
        PreparePicture(components["transformer"], components["scheduler"], vae.config, residency, can_mask=can_mask),
        Denoise(),
        Decode(vae, residency, tiling, kind="image", latents_of=partial(unpacked, vae=vae.config)),
    ]


def _conditions(
    plan: ExecutionPlan, folder: Path, components: dict[str, Any], residency: Residency, tiling: Tiling | None
) -> list[Stage]:
    encoder, tokenizer = components["text_encoder"], components["tokenizer"]
    if not takes_image(plan.model):
        prompts = EncodePrompts(partial(encode_prompt, encoder, tokenizer), residency, is_guided=is_guided)
        return [prompts, _encode_start(plan, folder, components["vae"].config, residency, tiling)]
    from .edit_stages import AREA, SEEN_AREA, EncodeEdit, EncodeReferences, OpenImages

    is_plus = plan.model.pipeline_class == EDIT_PLUS
    template, seen_area = (EDIT_PLUS_TEMPLATE, SEEN_AREA) if is_plus else (EDIT_TEMPLATE, AREA)
    return [
        OpenImages(),
        EncodeEdit(encoder, tokenizer, components["processor"], template, residency, seen_area=seen_area),
        EncodeReferences(components["vae"], residency, tiling),
    ]


def _encode_start(
    plan: ExecutionPlan, folder: Path, config: CausalVaeConfig, residency: Residency, tiling: Tiling | None
) -> EncodeStart:
    def load() -> CausalVae:
        return _vae(plan, folder, plan.model.components["vae"], with_encoder=True, with_decoder=False)

    assert plan.call.with_image is not None
    mode = plan.components["vae"].residency.value
    return EncodeStart(load, config, residency, tiling, mode=mode, call=plan.call.with_image)


def _patches(folder: Path) -> Any:
    from .vision_encoder import ImagePatches  # only models that edit need it

    return ImagePatches.from_folder(folder / "processor")


def _text_encoder(
    plan: ExecutionPlan, folder: Path, described: ComponentDescription, attention_of: AttentionOf
) -> nn.Module:
    attention, dtype = attention_of("text_encoder", "self").attention, dtype_of(plan, "text_encoder")
    if takes_image(plan.model):
        from .vision_encoder import VisionLanguageEncoder, rename_weight  # only models that edit need it

        seeing = VisionLanguageEncoder(described.config, attention)
        read_weights(seeing, described, folder, dtype=dtype, rename=rename_weight)
        seeing.prepare()
        return seeing
    encoder = Qwen2TextEncoder(TextEncoderConfig.from_json(described.config), attention)
    read_weights(encoder, described, folder, dtype=dtype, rename=rename_text_weight)
    encoder.prepare()
    return encoder


def _transformer(
    plan: ExecutionPlan, folder: Path, described: ComponentDescription, attention_of: AttentionOf
) -> QwenImageTransformer:
    config = QwenImageTransformerConfig.from_json(described.config)
    transformer = QwenImageTransformer(config, attention_of("transformer", "self").attention)
    read_weights(transformer, described, folder, dtype=dtype_of(plan, "transformer"))
    transformer.prepare()
    return transformer


def _vae(
    plan: ExecutionPlan,
    folder: Path,
    described: ComponentDescription,
    *,
    with_encoder: bool,
    with_decoder: bool = True,
) -> CausalVae:
    config = CausalVaeConfig.from_component(described)
    vae = CausalVae(config, with_encoder=with_encoder, with_decoder=with_decoder)
    read_weights(vae, described, folder, dtype=dtype_of(plan, "vae"), rename=vae.rename)
    vae.prepare(single_frame=True, at_first_use=plan.device.value == "cpu")
    return vae
