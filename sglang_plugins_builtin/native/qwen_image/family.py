"""Qwen-Image as the host sees it while planning: light, nothing of torch is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

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

#: Models that edit an image, and those that take several.
EDIT, EDIT_PLUS = "QwenImageEditPipeline", "QwenImageEditPlusPipeline"
#: What diffusers calls starting from an image, and painting inside of a mask, with a text-to-image model.
IMAGE_TO_IMAGE, INPAINT = "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"
#: Their default.
_USUAL_STRENGTH = 0.6
_CLASSES = {
    "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
    "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    "transformer": ("QwenImageTransformer2DModel",),
    "vae": ("AutoencoderKLQwenImage",),
    "scheduler": ("FlowMatchEulerDiscreteScheduler",),
}
_EDIT_CLASSES = {**_CLASSES, "processor": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")}
_USE_DIFFUSERS = "use --backend diffusers"


class QwenImageFamily:
    """Qwen-Image and models of its architecture (technical report, arXiv:2508.02324): text to image, and editing."""

    name = "qwen-image"

    @property
    def pipeline_classes(self) -> Collection[str]:
        """Return the pipeline classes of the diffusers folders it reads."""
        return ("QwenImagePipeline", EDIT, EDIT_PLUS)

    def supports(self, model: ModelDescription, settings: Settings) -> Availability:
        """Say whether the components are of the classes, and set as, this family has them."""
        from ..schedules.reading import schedule_of  # attrs classes: only where something is planned
        from .configs import check_text_encoder, check_transformer

        for name, class_names in (_EDIT_CLASSES if takes_image(model) else _CLASSES).items():
            component = model.components.get(name)
            if component is None:
                return Availability.no(f"{model.reference} has no {name}", _USE_DIFFUSERS)
            if component.class_name not in class_names:
                problem = f"its {name} is a {component.class_name}, the family qwen-image reads {class_names[0]}"
                return Availability.no(problem, _USE_DIFFUSERS)
        try:
            check_transformer(model.components["transformer"].config)
            check_text_encoder(model.components["text_encoder"].config)
            schedule_of(model.components["scheduler"], shifts_by_size=True)
        except ModelLoadError as error:
            return Availability.no(error.problem, error.remedy)
        if takes_image(model) and importlib.util.find_spec("transformers") is None:
            return Availability.no("models that edit images need transformers", "pip install transformers")
        return Availability.yes()

    def describe_call(self, model: ModelDescription) -> CallDescription:
        """Say what a call takes: the arguments of the pipeline of diffusers, with its defaults.

        Where an image is edited, a size that is not given follows from its shape when it is opened.
        """
        from sglang_core import CallDescription  # only where something is planned

        edits = takes_image(model)
        parameters = {
            "prompt": None,
            "negative_prompt": " ",
            "width": None if edits else 1024,
            "height": None if edits else 1024,
            "num_inference_steps": 50,
            "true_cfg_scale": 4.0,
            "guidance_scale": None,
        }
        if edits:
            parameters["image"] = None
        call = CallDescription(
            kind="image",
            parameters=parameters,
            required=("prompt", "image") if edits else ("prompt",),
            multiple_of=2 * vae_scale(model),
            min_steps=model.fewest_steps,
            spellings={"guidance_scale": "true_cfg_scale"},
            max_images=1 if model.pipeline_class == EDIT else None,
        )
        if edits:
            return call
        return evolve(
            call,
            with_image=_call_with(call, model, IMAGE_TO_IMAGE, "image"),
            with_mask=_call_with(call, model, INPAINT, "image", "mask_image"),
        )

    def attention_needs(self, model: ModelDescription) -> Mapping[str, AttentionNeed]:
        """Return the joint attention of the transformer and the causal one of the text encoder."""
        from sglang_core import AttentionNeed  # as above

        transformer = model.components["transformer"].config
        encoder = model.components["text_encoder"].config
        text = encoder.get("text_config") or encoder
        num_heads = int(text.get("num_attention_heads") or 28)
        return {
            "transformer.self": AttentionNeed(
                head_dim=int(transformer.get("attention_head_dim") or 128),
                num_heads=int(transformer.get("num_attention_heads") or 24),
            ),
            "text_encoder": AttentionNeed(
                head_dim=int(text.get("head_dim") or int(text.get("hidden_size") or 3584) // num_heads),
                num_heads=num_heads,
                num_kv_heads=int(text.get("num_key_value_heads") or 4),
                is_causal=True,
            ),
        }

    def estimate_memory(self, query: MemoryQuery) -> RunMemory:
        """Return what a run takes: weights, and each stage beside them.

        :raises ModelLoadError: if a configuration can not be read.
        """
        from .memory import qwen_image_memory  # only where something is planned

        return qwen_image_memory(query, takes_image=takes_image(query.model))

    def load(
        self, plan: ExecutionPlan, folder: Path, control: StepControl, attention_of: AttentionOf
    ) -> LoadedPipeline:
        """Read the weights; each component is a step of the stage ``load``.

        :raises ModelLoadError: if the files cannot be used.
        """
        from .loading import load_qwen_image  # torch: seconds, so only here

        return load_qwen_image(plan, folder, control, attention_of)


def _call_with(call: CallDescription, model: ModelDescription, class_name: str, *inputs: str) -> CallDescription:
    """Return a call that starts from an image, whose shape the result has, on the components of text to image."""
    sampling = model.sampling_defaults
    return evolve(
        call,
        parameters={
            **call.parameters,
            **dict.fromkeys((*inputs, "width", "height")),
            "strength": _USUAL_STRENGTH,
        },
        required=("prompt", *inputs),
        max_images=1,
        pipeline_class=class_name,
        image_area=int(sampling.get("width") or 1024) * int(sampling.get("height") or 1024),
    )


def takes_image(model: ModelDescription) -> bool:
    """Say whether a model edits images."""
    return model.pipeline_class in (EDIT, EDIT_PLUS)


def vae_scale(model: ModelDescription) -> int:
    """Return how many pixels of a side one latent stands for."""
    downsample = model.components["vae"].config.get("temperal_downsample")
    return 2 ** len(downsample) if isinstance(downsample, list) and downsample else 8
