"""What a call of a model takes and makes, from its pipeline's source and its components' configurations."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import evolve

from sglang_core import CallDescription

from .pipeline_code import IMAGE_RESULTS, VIDEO_RESULTS, installed_pipeline, parse_pipeline
from .relatives import relative_of

if TYPE_CHECKING:
    from sglang_core import MediaKind, ModelDescription

    from .pipeline_code import PipelineCode

#: Arguments that the backend itself passes, or that would undo its step control.
OWN_ARGUMENTS = frozenset(
    {
        "generator",
        "output_type",
        "return_dict",
        "callback",
        "callback_steps",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
        "num_images_per_prompt",
        "num_videos_per_prompt",
    }
)
#: (pixels, frames) per latent of VAEs whose configuration does not say so.
_KNOWN_VAES = {
    "AutoencoderKLLTXVideo": (32, 8),
    "AutoencoderKLLTX2Video": (32, 8),
    "AutoencoderKLMochi": (8, 6),
}
#: Frames per second that families were trained at, by the beginning of the class name.
_FRAME_RATES = {
    "Wan": 16,
    "SkyReels": 24,
    "CogVideoX": 8,
    "Mochi": 30,
    "Allegro": 15,
    "AnimateDiff": 8,
    "StableVideo": 7,
}
_DEFAULT_FRAME_RATE = 24
#: Pixels of a result where neither the model nor its configurations tell.
_USUAL_AREA = 1024 * 1024
#: They make a size of their own of the image, and drop the one they are given.
_CHOOSE_THE_SIZE = frozenset({"QwenImageEditInpaintPipeline"})
_STARTS_FROM_IMAGE = re.compile("Img2Img|ImageToVideo|Image2Video|I2V|I2I|Inpaint|Edit|StableVideoDiffusion|Upscale")


def pipeline_code(model: ModelDescription) -> PipelineCode | None:
    """Return the code of the model's pipeline class: the repo's own where the index names it, else diffusers'."""
    if uses_custom_pipeline(model):
        return parse_pipeline(model.pipeline_code, model.pipeline_class)
    return installed_pipeline(model.pipeline_class)


def uses_custom_pipeline(model: ModelDescription) -> bool:
    """Say whether the pipeline class comes from the repo: as the index says, or because diffusers does not have it."""
    if isinstance(model.index.get("_class_name"), list):
        return True
    return bool(model.pipeline_code) and installed_pipeline(model.pipeline_class) is None


def makes_media(code: PipelineCode) -> bool:
    """Say whether a pipeline makes pictures or clips, as far as its source tells."""
    return not code.results or bool(code.results & (IMAGE_RESULTS | VIDEO_RESULTS))


def describe(model: ModelDescription, code: PipelineCode) -> CallDescription:
    """Put together what the host must know about every call of a model: its own, and those of its relatives."""
    call = _own_call(model, code)
    if call.kind != "image" or uses_custom_pipeline(model):
        return call
    with_image = with_mask = None
    if "image" not in call.parameters:
        with_image = _relative_call(model, relative_of(model, "image"))
    if "mask_image" not in call.parameters:
        with_mask = _relative_call(model, relative_of(model, "mask"))
    return evolve(call, with_image=with_image, with_mask=with_mask)


def _own_call(model: ModelDescription, code: PipelineCode) -> CallDescription:
    """Put together what the host must know about the call of one pipeline."""
    kind = _kind(code)
    parameters = {name: value for name, value in code.parameters.items() if name not in OWN_ARGUMENTS}
    spellings = _spellings(model, parameters)
    if spellings.get("guidance_scale") == "true_cfg_scale" and parameters.get("negative_prompt") is None:
        parameters["negative_prompt"] = " "  # without one these pipelines leave guidance off
    if kind == "video" and "fps" not in spellings:
        parameters.setdefault("fps", _frame_rate(code.class_name))
    pixels, frames = _pixels_and_frames(model)
    return CallDescription(
        kind=kind,
        parameters=parameters,
        required=_required(code, parameters),
        takes_any=code.takes_any,
        multiple_of=pixels * _patch(model, code),
        frames_step=frames if kind == "video" and _needs_whole_latents(code) else None,
        min_steps=model.fewest_steps,
        spellings=spellings,
    )


def _relative_call(model: ModelDescription, code: PipelineCode | None) -> CallDescription | None:
    """Return the call of another pipeline on the components of a model; the result has the shape of its image."""
    if code is None:
        return None
    call = _own_call(model, code)
    sides: dict[str, Any] = {} if code.class_name in _CHOOSE_THE_SIZE else {"width": None, "height": None}
    parameters = {name: value for name, value in call.parameters.items() if name not in {"width", "height"}}
    return evolve(
        call,
        parameters={**parameters, **sides},
        max_images=1,
        pipeline_class=code.class_name,
        image_area=_area(model) if sides else None,
    )


def _area(model: ModelDescription) -> int:
    """Return how many pixels the results of a model usually have."""
    width, height = model.sampling_defaults.get("width"), model.sampling_defaults.get("height")
    if width and height:
        return int(width * height)
    pixels, _ = _pixels_and_frames(model)
    for name in ("unet", "transformer"):
        size = _whole(model.components[name].config.get("sample_size")) if name in model.components else None
        if size is not None:
            return (size * pixels) ** 2
    return _USUAL_AREA


def _kind(code: PipelineCode) -> MediaKind:
    if code.results & VIDEO_RESULTS:
        return "video"
    if code.results & IMAGE_RESULTS:
        return "image"
    return "video" if "num_frames" in code.parameters else "image"


def _required(code: PipelineCode, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    required = [name for name in code.required if name in parameters]
    if "image" in parameters and "image" not in required and _STARTS_FROM_IMAGE.search(code.class_name):
        required.append("image")
    if "mask_image" in parameters and "mask_image" not in required and "Inpaint" in code.class_name:
        required.append("mask_image")
    return tuple(required)


def _spellings(model: ModelDescription, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return how the call spells request fields.

    The guidance a user means is the one that acts. Pipelines with a ``true_cfg_scale`` keep ``guidance_scale`` for
    guidance-distilled transformers; where the transformer is not, it does nothing.
    """
    spellings = {}
    if "true_cfg_scale" in parameters and parameters.get("guidance_scale") is None and not _is_distilled(model):
        spellings["guidance_scale"] = "true_cfg_scale"
    if "frame_rate" in parameters and "fps" not in parameters:
        spellings["fps"] = "frame_rate"
    if "video_length" in parameters and "num_frames" not in parameters:
        spellings["num_frames"] = "video_length"
    return spellings


def _is_distilled(model: ModelDescription) -> bool:
    return any(component.config.get("guidance_embeds") is True for component in model.components.values())


def _frame_rate(class_name: str) -> int:
    rates = (rate for prefix, rate in _FRAME_RATES.items() if class_name.startswith(prefix))
    return next(rates, _DEFAULT_FRAME_RATE)


def _pixels_and_frames(model: ModelDescription) -> tuple[int, int | None]:
    """Return how many pixels of a side, and how many frames, one latent stands for."""
    vae = model.components.get("vae") or model.components.get("vqvae") or model.components.get("movq")
    if vae is None:
        return 1, None
    config = vae.config
    if vae.class_name in _KNOWN_VAES:
        return _KNOWN_VAES[vae.class_name]
    downsample = config.get("temperal_downsample") or config.get("temporal_downsample") or ()
    pixels = _whole(config.get("scale_factor_spatial")) or _whole(config.get("spatial_compression_ratio"))
    frames = _whole(config.get("scale_factor_temporal")) or _whole(config.get("temporal_compression_ratio"))
    if isinstance(downsample, list) and downsample:
        pixels = pixels or 2 ** len(downsample)
        frames = frames or 2 ** sum(bool(entry) for entry in downsample)
    channels = config.get("encoder_block_out_channels") or config.get("block_out_channels")
    if not pixels and isinstance(channels, list) and channels:
        pixels = 2 ** (len(channels) - 1)
    return pixels or 1, frames


def _whole(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 1
    return int(value) if is_number else None


def _patch(model: ModelDescription, code: PipelineCode) -> int:
    """Return how many latents of a side are taken together: by the transformer, or packed by the pipeline."""
    packed = 2 if re.search(r"vae_scale_factor(_spatial)? \* 2\b", code.text) else 1
    sizes = [1]
    for name, component in model.components.items():
        size = component.config.get("patch_size") if name.startswith("transformer") else None
        size = size[-1] if isinstance(size, list) and size else size
        sizes.append(_whole(size) or 1)
    return math.lcm(packed, *sizes)


def _needs_whole_latents(code: PipelineCode) -> bool:
    return re.search(r"num_frames - 1\b|scale_factor_temporal != 1|compression_ratio != 1", code.text) is not None
