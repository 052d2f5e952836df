"""From a Wan folder to its stages. Heavy: torch is imported here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sglang_core import AttentionOf, ComponentDescription, ExecutionOptions, ExecutionPlan, StepControl

from ..causal_vae.config import CausalVaeConfig, Tiling
from ..causal_vae.model import CausalVae
from ..engine import (
    Decode,
    Denoise,
    EncodePrompts,
    Residency,
    StagedPipeline,
    dtype_of,
    load_components,
    read_weights,
    residency_of,
)
from ..schedules.reading import load_schedule
from .family import boundary_ratio, sees_image, takes_image, transformers_of
from .image_encoder import ImageEncoder
from .stages import EncodeImage, Expert, PrepareClip, encode_prompt, finished, is_guided
from .text_encoder import UMT5Encoder
from .text_encoder import stored_name as stored_text_name
from .text_encoder_config import UMT5Config
from .tokenizer import UMT5Tokenizer
from .transformer import Padding, WanTransformer, stored_name
from .transformer_config import FLOAT32_PARTS, WanConfig


def load_wan(plan: ExecutionPlan, folder: Path, control: StepControl, attention_of: AttentionOf) -> StagedPipeline:
    """Read every component as the plan says and compose the stages.

    :raises ModelLoadError: if the files cannot be used.
    """
    described = plan.model.components
    residency = residency_of(plan)
    makers: dict[str, Callable[[], Any]] = {
        "tokenizer": lambda: UMT5Tokenizer.from_folder(folder / "tokenizer"),
        "scheduler": lambda: load_schedule(described["scheduler"]),
        "text_encoder": lambda: _text_encoder(plan, folder, described["text_encoder"], attention_of),
        "vae": lambda: _vae(plan, folder, described["vae"]),
    }
    for name in transformers_of(plan.model):
        makers[name] = partial(_transformer, plan, folder, described[name], attention_of)
    if sees_image(plan.model):
        makers["image_encoder"] = lambda: ImageEncoder.from_folder(folder, dtype_of(plan, "image_encoder"))
    components = load_components(plan, makers, residency, control)
    return StagedPipeline(plan, _stages(plan, components, residency), components, residency)


def _stages(plan: ExecutionPlan, components: dict[str, Any], residency: Residency) -> list[Any]:
    vae: CausalVae = components["vae"]
    execution = plan.settings.of(ExecutionOptions)
    tiling = Tiling() if execution.vae_tiling else None
    experts = [Expert(name, components[name]) for name in transformers_of(plan.model)]
    is_expanded = bool(plan.model.index.get("expand_timesteps"))
    encode = partial(encode_prompt, components["text_encoder"], components["tokenizer"])
    stages: list[Any] = [EncodePrompts(encode, residency, is_guided=is_guided)]
    if takes_image(plan.model):
        stages.append(
            EncodeImage(vae, components.get("image_encoder"), residency, tiling, only_first_frame=is_expanded)
        )
    prepare = PrepareClip(
        experts,
        components["scheduler"],
        vae.config,
        residency,
        boundary_ratio=boundary_ratio(plan.model),
        has_token_timesteps=is_expanded,
    )
    return [*stages, prepare, Denoise(), Decode(vae, residency, tiling, kind="video", latents_of=finished)]


def _text_encoder(
    plan: ExecutionPlan, folder: Path, described: ComponentDescription, attention_of: AttentionOf
) -> UMT5Encoder:
    config = UMT5Config.read(described.config, "text_encoder/config.json")
    encoder = UMT5Encoder(config, attention_of("text_encoder", "self").attention)
    dtype = dtype_of(plan, "text_encoder")
    read_weights(encoder, described, folder, dtype=dtype, rename=stored_text_name)
    return encoder


def _transformer(
    plan: ExecutionPlan, folder: Path, described: ComponentDescription, attention_of: AttentionOf
) -> WanTransformer:
    config = WanConfig.read(described.config, f"{described.name}/config.json")
    cross = attention_of(described.name, "cross")
    padding: Padding = "rows"
    if cross.capabilities.has_masks:
        padding = "bias"
    elif cross.capabilities.has_lse:
        padding = "log-sum-exp"
    transformer = WanTransformer(
        config, attention_of(described.name, "self").attention, cross.attention, padding=padding
    )
    dtype = dtype_of(plan, described.name)
    read_weights(transformer, described, folder, dtype=dtype, rename=stored_name, float32_parts=FLOAT32_PARTS)
    transformer.prepare()
    return transformer


def _vae(plan: ExecutionPlan, folder: Path, described: ComponentDescription) -> CausalVae:
    vae = CausalVae(CausalVaeConfig.from_component(described), with_encoder=takes_image(plan.model))
    read_weights(vae, described, folder, dtype=dtype_of(plan, "vae"), rename=vae.rename)
    vae.prepare(at_first_use=plan.device.value == "cpu")
    return vae
