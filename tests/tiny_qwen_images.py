"""Small models of the Qwen-Image family with random weights, as folders, and both ways to run them."""

import json
from pathlib import Path
from typing import Any

import torch

import sglang_plugins_builtin.demo_models as demo_models
from sglang_core import PluginManager, StepControl, create_plugin_manager
from sglang_core.planning import plan_run
from sglang_core.testing import make_settings

#: The trained image model that is shipped.
EMBEDDED = Path(demo_models.__file__).parent / "weights" / "shapes-image"
TRANSFORMER: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 32,
    "axes_dims_rope": (4, 6, 6),
}
#: Four pixels of a side are one latent, so eight are one token.
VAE: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [1.5, 0.5, 2.0, 1.0],
}
_TEXT: dict[str, Any] = {
    "vocab_size": 760,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}
_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 24,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [1],
}
_DYNAMIC = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}


def shaken(model: Any, deviation: float = 0.05) -> Any:
    """Return a model whose weights are as different from zero and one as trained ones are.

    The embedding of timesteps stays smooth: a trained one hardly sees that bfloat16 has few of them.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("time_text_embed"):
                parameter.mul_(0.3)
            else:
                parameter.add_(deviation * torch.randn_like(parameter))
    return model.eval()


def parts(*, scheduler: dict[str, Any] | None = None, **transformer: Any) -> dict[str, Any]:
    """Return the components of a pipeline of diffusers, with weights that are always the same."""
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    config = Qwen2_5_VLConfig(text_config=_TEXT, vision_config=_VISION, image_token_id=image_token)
    return {
        # with smaller weights all tokens are attended to alike, and nobody would see where they are
        "text_encoder": shaken(Qwen2_5_VLForConditionalGeneration(config), 0.3),
        "tokenizer": tokenizer,
        "transformer": shaken(QwenImageTransformer2DModel(**{**TRANSFORMER, **transformer}), 0.15),
        "vae": shaken(AutoencoderKLQwenImage(**VAE)),
        "scheduler": FlowMatchEulerDiscreteScheduler(**(_DYNAMIC if scheduler is None else scheduler)),
    }


def image_processor() -> Any:
    """Return what cuts images into patches for the text encoder."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)


class Processor:
    """``Qwen2VLProcessor`` on images and text; the one of transformers needs torchvision even without clips."""

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self.images, self.tokenizer = images, tokenizer

    def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> Any:
        from transformers import BatchFeature

        cut = self.images(images=images, return_tensors="pt")
        for rows, columns in cut["image_grid_thw"][:, 1:].tolist():
            text = [each.replace("<|image_pad|>", "<image>" * (rows * columns // 4), 1) for each in text]
        text = [each.replace("<image>", "<|image_pad|>") for each in text]
        return BatchFeature({**self.tokenizer(text, padding=padding, return_tensors=return_tensors), **cut})


def write(folder: Path, class_name: str, components: dict[str, Any]) -> Path:
    """Save components as the folder of a pipeline of diffusers."""
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": "0.36.0"}
    for name, component in components.items():
        component.save_pretrained(folder / name)
        library = type(component).__module__.partition(".")[0]
        index[name] = [library, type(component).__name__]
    if "processor" in index:
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


class Recorder:
    """A stage before decoding that keeps the latents."""

    name = "record"
    latents: torch.Tensor

    def num_steps(self, state: Any) -> None:
        return

    def run(self, state: Any, control: StepControl) -> None:
        self.latents = state.latents


class Native:
    """A folder loaded by the native backend; its latents and frames by the values of a request."""

    def __init__(self, folder: Path, manager: PluginManager | None = None, **settings: Any) -> None:
        self.manager = manager or create_plugin_manager(only_built_ins=True)
        self._settings = {"model_path": str(folder), "backend": "sglang", "precision": "fp32", **settings}
        self.plan = self.planned().plan
        backend = self.manager.execution_backends.get("sglang")
        self.pipeline: Any = backend.load(self.plan, folder, StepControl())
        self._recorder = Recorder()
        self.pipeline.stages.insert(-1, self._recorder)

    def planned(self, **request: Any) -> Any:
        return plan_run(self.manager, make_settings(self.manager, **{"prompt": "x", **self._settings, **request}))

    def frames(self, control: StepControl | None = None, **request: Any) -> Any:
        """Return uint8 (height, width, 3)."""
        planned = self.planned(**request).plan.requests[0]
        return self.pipeline.run(planned, control or StepControl()).frames[0]

    def latents(self, **request: Any) -> torch.Tensor:
        self.frames(**request)
        return self._recorder.latents


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the relative L2 distance."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
