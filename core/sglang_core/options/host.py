"""The settings that the host itself reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import frozen, validators

from .fields import option

Precision = Literal["fp16", "bf16", "fp32"]
ResidencyMode = Literal["resident", "component-offload", "layerwise-offload"]

#: What every random number generator takes.
MAX_SEED = 2**63 - 1
DEFAULT_MODEL = "demo/shapes-image"


@frozen(kw_only=True)
class ModelOptions:
    """Model."""

    model_path: str = option(
        default=DEFAULT_MODEL, help="Model: a local folder, a hub id such as Qwen/Qwen-Image, or an embedded model."
    )
    revision: str | None = option(default=None, help="Branch, tag or commit of a hub model.")
    hf_token: str | None = option(default=None, help="Access token for the hub.", env="HF_TOKEN", is_secret=True)
    offline: bool = option(default=False, help="Use only what is already downloaded.", env="HF_HUB_OFFLINE")
    trust_remote_code: bool = option(default=False, help="Run Python code that comes with the model.")
    backend: str = option(default="auto", help="Execution backend: auto, or one that 'sglang plugins list' shows.")


@frozen(kw_only=True)
class ExecutionOptions:
    """Device and precision."""

    device: Literal["auto", "cuda", "mps", "xpu", "cpu"] = option(default="auto", help="Where to run.")
    precision: Precision | None = option(default=None, help="Precision of every component.")
    dit_precision: Precision | None = option(default=None, help="Precision of the denoising transformer or UNet.")
    vae_precision: Precision | None = option(default=None, help="Precision of the VAE.")
    image_encoder_precision: Precision | None = option(default=None, help="Precision of the image encoder.")
    text_encoder_precisions: tuple[Precision, ...] = option(
        default=(), help="Precision of each text encoder, in their order; one value serves all."
    )
    component_precisions: Mapping[str, Precision] = option(
        factory=dict, help="Precision of single components, by their key in model_index.json."
    )
    vae_tiling: bool | None = option(default=None, help="Decode in tiles, which needs less memory.")
    vae_slicing: bool | None = option(default=None, help="Decode one item of a batch at a time.")


@frozen(kw_only=True)
class AttentionOptions:
    """Attention."""

    attention_backend: str | None = option(
        default=None,
        env="SGLANG_DIFFUSION_ATTENTION_BACKEND",
        metavar="NAME",
        help="Attention backend of every component, from 'sglang attention'; automatic if unset.",
    )
    attention_backend_config: Mapping[str, Any] = option(
        factory=dict,
        reads_files=True,
        metavar="CONFIG",
        help="Parameters of the attention backend: a JSON object, name=value,..., or a JSON or YAML file.",
    )
    component_attention_backends: Mapping[str, str] = option(
        factory=dict,
        aliases=("component_attention_backend",),
        metavar="NAME=BACKEND ...",
        help="Attention backend of single components, or of their .self or .cross attention.",
    )


@frozen(kw_only=True)
class OffloadOptions:
    """Offload."""

    text_encoder_cpu_offload: bool | None = option(default=None, help="Keep text encoders in host memory until used.")
    image_encoder_cpu_offload: bool | None = option(
        default=None, help="Keep the image encoder in host memory until used."
    )
    dit_cpu_offload: bool | None = option(default=None, help="Keep the transformer or UNet in host memory until used.")
    vae_cpu_offload: bool | None = option(default=None, help="Keep the VAE in host memory until used.")
    dit_layerwise_offload: bool | None = option(default=None, help="Stream the transformer's layers from host memory.")
    cpu_offload_components: tuple[str, ...] = option(
        default=(), help="Components or groups (dit, text_encoder, image_encoder, vae, all) to keep in host memory."
    )
    layerwise_offload_components: tuple[str, ...] = option(
        default=(),
        help="Components or groups to stream layer by layer from host memory.",
        aliases=("layerwise_offload_modules",),
    )
    component_residency: Mapping[str, ResidencyMode] = option(
        factory=dict, help="Where each component or group lives: resident, component-offload or layerwise-offload."
    )
    pin_cpu_memory: bool = option(default=True, help="Pin host memory that is copied to the device.")


@frozen(kw_only=True)
class SamplingOptions:
    """Sampling."""

    prompt: tuple[str, ...] = option(default=(), help="What to make; several prompts make several outputs.")
    prompt_path: Path | None = option(
        default=None, help="Text file with one prompt a line.", aliases=("prompt_file_path",)
    )
    negative_prompt: str | None = option(default=None, help="What to keep away from.")
    image_path: tuple[str, ...] = option(
        default=(), help="Image(s) to start from: files, http(s) or data: URLs.", aliases=("image_paths",)
    )
    mask_path: str | None = option(
        default=None,
        help="Mask of the image: paint anew where it is transparent or, if it is opaque all over, where it is white.",
    )
    strength: float | None = option(
        default=None,
        help="How far to go from the image, up to 1: all the way.",
        validator=validators.optional([validators.gt(0), validators.le(1)]),
    )
    seed: tuple[int, ...] = option(
        default=(42,),
        help="Seed; output i uses seed + i. A list gives one for each output.",
        validator=validators.deep_iterable(validators.and_(validators.ge(0), validators.le(MAX_SEED))),
    )
    num_outputs_per_prompt: int = option(
        default=1, help="Outputs for each prompt.", aliases=("num_outputs",), validator=validators.ge(1)
    )
    width: int | None = option(default=None, help="Width in pixels.", validator=validators.optional(validators.ge(1)))
    height: int | None = option(default=None, help="Height in pixels.", validator=validators.optional(validators.ge(1)))
    num_frames: int | None = option(
        default=None, help="Frames of a clip.", validator=validators.optional(validators.ge(1))
    )
    fps: int | None = option(
        default=None, help="Frames per second of a clip.", validator=validators.optional(validators.ge(1))
    )
    num_inference_steps: int | None = option(
        default=None, help="Denoising steps.", validator=validators.optional(validators.ge(1))
    )
    guidance_scale: float | None = option(
        default=None, help="Classifier-free guidance scale.", validator=validators.optional(validators.ge(0))
    )
    guidance_scale_2: float | None = option(
        default=None,
        help="Guidance scale of the second, low-noise expert.",
        validator=validators.optional(validators.ge(0)),
    )
    true_cfg_scale: float | None = option(
        default=None,
        help="True guidance scale of models whose guidance_scale is distilled.",
        validator=validators.optional(validators.ge(0)),
    )


@frozen(kw_only=True)
class OutputOptions:
    """Output."""

    output_path: str = option(default="outputs/", help="Folder for the results; empty: nothing is saved.")
    output_file_name: str | None = option(default=None, help="File name of the result; its extension is the format.")
    output_file_path: str | None = option(default=None, help="Folder and file name in one; wins over the two above.")
    output_quality: Literal["maximum", "high", "medium", "low", "default"] = option(
        default="default", help="Quality preset of the encoder."
    )
    output_compression: int | None = option(
        default=None,
        help="Encoder quality, 0 to 100; wins over the preset.",
        validator=validators.optional([validators.ge(0), validators.le(100)]),
    )
    x264_preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
    ] = option(default="fast", help="Speed preset of the H.264 encoder.")
    save_output: bool = option(default=True, help="Write the result to a file.", negative_flag=True)
    return_frames: bool = option(default=False, help="Keep the frames on the result of the Python API.")


@frozen(kw_only=True)
class RunOptions:
    """Run."""

    log_level: Literal["debug", "info", "warning", "error"] = option(
        default="info", help="Least important messages to show on stderr."
    )
    timeout_s: float | None = option(
        default=None, help="Stop the run after so many seconds.", validator=validators.optional(validators.gt(0))
    )


@frozen(kw_only=True)
class CallOptions:
    """Pipeline-specific arguments."""

    diffusers_kwargs: Mapping[str, Any] = option(
        factory=dict, help="Further arguments of the pipeline's call: a JSON object, or dotted entries."
    )
