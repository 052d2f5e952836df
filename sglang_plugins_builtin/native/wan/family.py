"""Wan as the host sees it while planning: light, nothing of torch is imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sglang_core import Availability, ModelLoadError

if TYPE_CHECKING:
    from sglang_core import (
        AttentionNeed,
        AttentionOf,
        CallDescription,
        ExecutionPlan,
        LoadedPipeline,
        MemoryQuery,
        ModelDescription,
        RunMemory,
        Settings,
        StepControl,
    )

    from ..causal_vae.config import CausalVaeConfig
    from .text_encoder_config import UMT5Config
    from .transformer_config import WanConfig

_IMAGE_TO_VIDEO = "WanImageToVideoPipeline"
_CLASSES = {
    "text_encoder": ("UMT5EncoderModel",),
    "tokenizer": ("T5TokenizerFast", "T5Tokenizer"),
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "scheduler": ("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"),
}
#: Of models that see their image through CLIP too.
_IMAGE_CLASSES = {
    "image_encoder": ("CLIPVisionModel",),
    "image_processor": ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
}
_USE_DIFFUSERS = "use --backend diffusers"


class WanFamily:
    """Wan 2.1 and 2.2: text to video, image to video, and both in one (technical report, arXiv:2503.20314)."""

    name = "wan"

    @property
    def pipeline_classes(self) -> Collection[str]:
        """Return the pipeline classes of the diffusers folders it reads."""
        return ("WanPipeline", _IMAGE_TO_VIDEO)

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether the components are of the classes, and set as, this family has them."""
        problem = _unfit_components(model)
        if problem is not None:
            return Availability.no(problem, _USE_DIFFUSERS)
        try:
            configs = [_config(model, name) for name in transformers_of(model)]
            _check_settings(model)
            ratio = boundary_ratio(model)
        except ModelLoadError as error:
            return Availability.no(error.problem, error.remedy)
        if (len(configs) == 2) != (ratio is not None):
            return Availability.no("its second transformer and its boundary_ratio do not fit", _USE_DIFFUSERS)
        if takes_image(model) and any(config.pos_embed_seq_len is not None for config in configs):
            problem = "its transformer attends to a last frame too (pos_embed_seq_len), and one image can be given"
            return Availability.no(problem, "use a model that starts from its first frame alone")
        if configs[0] != configs[-1]:
            return Availability.no("its two transformers are of different sizes", _USE_DIFFUSERS)
        return Availability.yes()

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what a call takes: the arguments of the pipeline of diffusers, with its defaults."""
        from sglang_core import CallDescription  # only where something is planned

        vae = _vae_config(model)
        parameters = {
            "prompt": None,
            "negative_prompt": None,
            "width": 832,
            "height": 480,
            "num_frames": 81,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
            "fps": 16,
        }
        if boundary_ratio(model) is not None:
            parameters["guidance_scale_2"] = None
        if takes_image(model):
            parameters["image"] = None
        return CallDescription(
            kind="video",
            parameters=parameters,
            required=("prompt", "image") if takes_image(model) else ("prompt",),
            multiple_of=vae.spatial_factor * _config(model).patch_size[1],
            frames_step=vae.temporal_factor,
            min_steps=model.fewest_steps,
            max_images=1,
        )

    def attention_needs(self, model: ModelDescription) -> Mapping[str, AttentionNeed]:
        """Return the transformer's attention among tokens and to the text, and the text encoder's."""
        from sglang_core import AttentionNeed  # as above

        config, encoder = _config(model), _text_config(model)
        needs = {"text_encoder": AttentionNeed(head_dim=encoder.d_kv, num_heads=encoder.num_heads, has_mask=True)}
        for name in transformers_of(model):
            for role in ("self", "cross"):
                needs[f"{name}.{role}"] = AttentionNeed(
                    head_dim=config.attention_head_dim,
                    num_heads=config.num_attention_heads,
                    is_cross=role == "cross",
                )
        return needs

    def estimate_memory(self, query: MemoryQuery) -> RunMemory:
        """Return what a run takes: weights, and each stage beside them.

        :raises ModelLoadError: if a configuration can not be read.
        """
        from .memory import wan_memory  # only where something is planned

        return wan_memory(query, transformers_of(query.model), takes_image=takes_image(query.model))

    def load(
        self, plan: ExecutionPlan, folder: Path, control: StepControl, attention_of: AttentionOf
    ) -> LoadedPipeline:
        """Read the weights; each component is a step of the stage ``load``.

        :raises ModelLoadError: if the files cannot be used.
        """
        from .loading import load_wan  # torch: seconds, so only here

        return load_wan(plan, folder, control, attention_of)


def transformers_of(model: ModelDescription) -> list[str]:
    """Return the names of its transformers: one, or one for high and one for low noise."""
    return [name for name in ("transformer", "transformer_2") if name in model.components]


def takes_image(model: ModelDescription) -> bool:
    """Say whether a model starts from an image."""
    return model.pipeline_class == _IMAGE_TO_VIDEO


def sees_image(model: ModelDescription) -> bool:
    """Say whether a model attends to what an image encoder makes of its image."""
    return takes_image(model) and _config(model).image_dim is not None


def boundary_ratio(model: ModelDescription) -> float | None:
    """Return from which share of the noise on the first of two transformers works; ``None`` where there is one.

    :raises ModelLoadError: if the index holds something else than a number there.
    """
    value = model.index.get("boundary_ratio")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelLoadError(f"boundary_ratio of {model.reference} is not a number: {value!r}", "download it again")
    return float(value)


def _unfit_components(model: ModelDescription) -> str | None:
    """Return what is missing, or of a class that this family does not have."""
    wanted = dict(_CLASSES)
    if "transformer_2" in model.components:
        wanted["transformer_2"] = _CLASSES["transformer"]
    transformer = model.components.get("transformer")
    if takes_image(model) and transformer is not None and transformer.config.get("image_dim") is not None:
        wanted.update(_IMAGE_CLASSES)
    for name, class_names in wanted.items():
        component = model.components.get(name)
        if component is None:
            return f"{model.reference} has no {name}"
        if component.class_name not in class_names:
            return f"its {name} is a {component.class_name}, the family wan reads {class_names[0]}"
    return None


def _check_settings(model: ModelDescription) -> None:
    """Read what loading will read of the other components' configurations.

    :raises ModelLoadError: for what this family does not have.
    """
    from ..schedules.reading import schedule_of  # attrs classes: only where something is planned

    _vae_config(model)
    schedule_of(model.components["scheduler"])
    _text_config(model)


def _config(model: ModelDescription, name: str = "transformer") -> WanConfig:
    from .transformer_config import WanConfig  # as above

    return WanConfig.read(model.components[name].config, f"{name}/config.json")


def _text_config(model: ModelDescription) -> UMT5Config:
    from .text_encoder_config import UMT5Config  # as above

    return UMT5Config.read(model.components["text_encoder"].config, "text_encoder/config.json")


def _vae_config(model: ModelDescription) -> CausalVaeConfig:
    from ..causal_vae.config import CausalVaeConfig  # as above

    return CausalVaeConfig.from_component(model.components["vae"])
