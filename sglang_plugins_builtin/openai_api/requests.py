"""The requests for images and videos, field by field."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from attrs import frozen

from .fields import ImageInput, RequestFields, api_field

MAX_SEED = 2**63 - 1
_SIZE_PATTERN = r"(auto|[1-9][0-9]{0,4}[xX][1-9][0-9]{0,4})"
_URL_PATTERN = r"([hH][tT][tT][pP][sS]?://|[dD][aA][tT][aA]:)[\s\S]+"
_URL_EXPECTED = "an http(s) or data: URL; a client does not name files of the server"
_SERVER_PATH = "a client does not choose paths of the server"
_SERVER_SETTING = "it is chosen when the server is started"
_NOT_ACCELERATED = "the server has no such acceleration for single requests"
_NO_POST_PROCESSING = "the server has no such step after the denoising"

#: Fields of other servers for the same models; the ones that ask for nothing are taken, the others refused.
_FOREIGN: Mapping[str, str] = {
    "output_path": _SERVER_PATH,
    "output_file_name": _SERVER_PATH,
    "output_file_path": _SERVER_PATH,
    "perf_dump_path": _SERVER_PATH,
    "image_path": "give an upload, a URL or a data URL; a client does not name files of the server",
    "mask_path": "give an upload, a URL or a data URL as 'mask'; a client does not name files of the server",
    "video_path": "give an upload, a URL or a data URL; a client does not name files of the server",
    "upscaling_model_path": _SERVER_PATH,
    "frame_interpolation_model_path": _SERVER_PATH,
    "generator_device": _SERVER_SETTING,
    "attention_backend_override": _SERVER_SETTING,
    "enable_teacache": _NOT_ACCELERATED,
    "enable_cache_dit": _NOT_ACCELERATED,
    "cache_dit_params": _NOT_ACCELERATED,
    "cfg_gate_step": _NOT_ACCELERATED,
    "skip_softmax_params": _NOT_ACCELERATED,
    "progressive_mode": _NOT_ACCELERATED,
    "progressive_levels": _NOT_ACCELERATED,
    "progressive_delta": _NOT_ACCELERATED,
    "enable_upscaling": _NO_POST_PROCESSING,
    "upscaling_scale": _NO_POST_PROCESSING,
    "enable_frame_interpolation": _NO_POST_PROCESSING,
    "frame_interpolation_exp": _NO_POST_PROCESSING,
    "frame_interpolation_scale": _NO_POST_PROCESSING,
    "enhance_prompt": "prompts are taken as they are",
    "task_type": "a server does the one task of its model",
    "profile": "a client does not start profilers",
    "profile_all_stages": "a client does not start profilers",
    "num_profiled_timesteps": "a client does not start profilers",
    "max_sequence_length": "give it inside 'diffusers_kwargs'",
    "flow_shift": "give it inside 'diffusers_kwargs'",
    "num_outputs_per_prompt": "use 'n'",
}
_FOREIGN_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "enable_teacache": (False,),
    "enable_cache_dit": (False,),
    "enable_upscaling": (False,),
    "enable_frame_interpolation": (False,),
    "enhance_prompt": (False,),
    "profile": (False,),
    "profile_all_stages": (False,),
}


@frozen(kw_only=True)
class SamplingFields(RequestFields):
    """What every request for images or videos may say."""

    prompt: str = api_field("What to make.", max_length=10_000, example="a red circle on a white background")
    model: str | None = api_field(
        "The model: a name that `GET /v1/models` lists. Without it the server's model is used.",
        default=None,
        max_length=300,
    )
    n: int | None = api_field("How many to make; each has a seed of its own.", default=None, minimum=1, maximum=10)
    size: str | None = api_field(
        "`WIDTHxHEIGHT` in pixels, or `auto` for the model's own size.",
        default=None,
        pattern=_SIZE_PATTERN,
        expected="WIDTHxHEIGHT, for example 512x512, or auto",
    )
    width: int | None = api_field(
        "Extension: width in pixels, instead of `size`.", default=None, minimum=1, maximum=99_999
    )
    height: int | None = api_field(
        "Extension: height in pixels, instead of `size`.", default=None, minimum=1, maximum=99_999
    )
    seed: tuple[int, ...] | None = api_field(
        "Extension: seed of the random numbers; output i uses seed + i. A list gives one for each output.",
        default=None,
        minimum=0,
        maximum=MAX_SEED,
    )
    negative_prompt: str | None = api_field(
        "Extension: what to keep away from, for models that use guidance.", default=None, max_length=10_000
    )
    num_inference_steps: int | None = api_field("Extension: denoising steps.", default=None, minimum=1, maximum=10_000)
    guidance_scale: float | None = api_field(
        "Extension: how strongly the prompt is followed.", default=None, minimum=0, maximum=1000
    )
    guidance_scale_2: float | None = api_field(
        "Extension: guidance of the second, low-noise expert of models that have two.",
        default=None,
        minimum=0,
        maximum=1000,
    )
    true_cfg_scale: float | None = api_field(
        "Extension: true guidance of models whose `guidance_scale` is distilled.",
        default=None,
        minimum=0,
        maximum=1000,
    )
    diffusers_kwargs: Mapping[str, Any] | None = api_field(
        "Extension: further arguments of the pipeline's call; an argument that it does not have is refused.",
        default=None,
    )
    lora: Mapping[str, Any] | None = api_field(
        "Extension: the adapters of this request, by nickname and strength, in place of those that are set; an empty "
        "object for none. `nickname@component` is for one of two denoisers.",
        default=None,
        example={"my-style": 0.8},
    )
    output_quality: Literal["maximum", "high", "medium", "low", "default"] | None = api_field(
        "Extension: quality preset of the encoder.", default=None
    )
    output_compression: int | None = api_field(
        "Encoder quality, from 0 to 100 (best); wins over `output_quality`.", default=None, minimum=0, maximum=100
    )
    priority: int | None = api_field(
        "Extension: larger comes first among the requests of one API key.", default=None, minimum=-10, maximum=10
    )
    webhook_url: str | None = api_field(
        "Extension: `http(s)` URL that is told, signed, when the job is over.",
        default=None,
        max_length=2000,
        pattern=r"https?://[^\s]+",
        expected="an http or https URL",
    )
    previews: int | None = api_field(
        "Extension: how many previews to make between the steps, for the job's event stream.",
        default=None,
        minimum=0,
        maximum=20,
    )
    user: str | None = api_field(
        "Taken and not used: it changes nothing about the result.", default=None, max_length=1000
    )
    safety_identifier: str | None = api_field(
        "Taken and not used: it changes nothing about the result.", default=None, max_length=1000
    )


@frozen(kw_only=True)
class ImageFields(SamplingFields):
    """What generations and edits have in common."""

    response_format: Literal["url", "b64_json"] | None = api_field(
        "How the images come: as URLs of this server (or of its storage), or in the answer.", default=None
    )
    output_format: Literal["png", "jpeg", "jpg", "webp"] | None = api_field(
        "File format of the images. Default: png.", default=None
    )
    background: Literal["auto", "opaque"] | None = api_field(
        "Images are opaque, so `transparent` is refused.", default=None
    )
    quality: Literal["auto", "standard"] | None = api_field(
        "Only the values that ask for nothing; the quality is set by `num_inference_steps`.", default=None
    )
    moderation: Literal["auto", "low"] | None = api_field(
        "Taken and not used: this server moderates nothing.", default=None
    )
    stream: bool | None = api_field(
        "Answer with server-sent events: partial images between the steps, then each finished image.", default=None
    )
    partial_images: int | None = api_field(
        "With `stream`: how many partial images to send.", default=None, minimum=0, maximum=3
    )
    run_in_background: bool | None = api_field(
        "Extension: answer at once with status 202 and the job's record; `GET /v1/images/{id}` tells when it is done. "
        "Without it the client waits, and the job is cancelled when the client hangs up.",
        default=None,
    )

    unsupported: ClassVar[Mapping[str, str]] = {
        **_FOREIGN,
        "complexity": "the model plans nothing; use 'num_inference_steps'",
        "frame_count": "images have one frame",
        "frame_duration_ms": "images have one frame",
        "svg": "the model makes pixels",
        "fps": "images have one frame",
        "seconds": "images have one frame",
        "num_frames": "images have one frame",
    }
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {**_FOREIGN_HARMLESS, "num_frames": (1,)}


@frozen(kw_only=True)
class ImageGenerationRequest(ImageFields):
    """Body of ``POST /v1/images/generations``."""

    style: Literal["vivid"] | None = api_field(
        "Only the value that asks for nothing; say the style in the prompt.", default=None
    )


@frozen(kw_only=True)
class ImageEditRequest(ImageFields):
    """Body of ``POST /v1/images/edits``."""

    image: tuple[ImageInput, ...] | None = api_field(
        "The image files to start from (`image`, or `image[]` several times): PNG, JPEG, WebP or GIF.",
        default=None,
        max_items=16,
    )
    url: tuple[str, ...] | None = api_field(
        "Extension: `http(s)` or `data:` URLs of images to start from, after the files.",
        default=None,
        max_items=16,
        pattern=_URL_PATTERN,
        expected=_URL_EXPECTED,
    )
    mask: ImageInput | None = api_field(
        "Which part of the (first) image to paint anew, for models that inpaint: an image of its size, transparent "
        "there or, if it is opaque all over, white.",
        default=None,
    )
    strength: float | None = api_field(
        "Extension: how far to go from the image, up to 1: all the way. For models that start from noise on the image.",
        default=None,
        exclusive_minimum=0,
        maximum=1,
    )
    input_fidelity: Literal["low"] | None = api_field(
        "Only the value that asks for nothing; how much of the image is kept depends on the model.", default=None
    )

    unsupported: ClassVar[Mapping[str, str]] = {
        **ImageFields.unsupported,
        "markup": "the server's model reads no markup; say in the prompt what to change",
        "image_url": "use 'url'",
    }


@frozen(kw_only=True)
class VideoRequest(SamplingFields):
    """Body of ``POST /v1/videos``."""

    seconds: float | None = api_field(
        "Length of the clip, as a number or as text; the nearest number of frames that the model can make is taken. "
        "Without it the clip is as long as the model recommends.",
        default=None,
        exclusive_minimum=0,
        maximum=3600,
        takes_text=True,
        example="4",
    )
    num_frames: int | None = api_field(
        "Extension: frames of the clip, instead of `seconds`.", default=None, minimum=1, maximum=100_000
    )
    fps: int | None = api_field("Extension: frames per second.", default=None, minimum=1, maximum=240)
    x264_preset: (
        Literal[
            "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
        ]
        | None
    ) = api_field("Extension: speed preset of the H.264 encoder.", default=None)
    input_reference: tuple[ImageInput, ...] | None = api_field(
        'An image to start from: a file, a `data:` or `http(s)` URL, or an object `{"image_url": URL}`.',
        default=None,
        max_items=1,
    )
    reference_url: str | None = api_field(
        "Extension: `http(s)` or `data:` URL of an image to start from.", default=None, max_length=40_000_000
    )

    unsupported: ClassVar[Mapping[str, str]] = {
        **_FOREIGN,
        "video_reference": "the model does not start from a video",
        "video_url": "the model does not start from a video",
        "characters": "the server keeps no characters",
        "quality": "use 'num_inference_steps'",
        "response_format": "the clip is fetched from /v1/videos/{id}/content",
        "output_format": "clips are MP4 files",
    }
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **_FOREIGN_HARMLESS,
        "quality": ("auto", "standard"),
        "output_format": ("mp4",),
    }


@frozen(kw_only=True)
class RemixRequest(RequestFields):
    """Body of ``POST /v1/videos/{id}/remix``."""

    prompt: str = api_field("What to make instead, with all other settings of the video.", max_length=10_000)


@frozen(kw_only=True)
class SetLoraRequest(RequestFields):
    """Body of ``POST /v1/set_lora``."""

    lora_nickname: tuple[str, ...] = api_field("Name of each adapter.", max_items=16, max_length=200)
    lora_path: tuple[str, ...] | None = api_field(
        "File, folder or hub id of each adapter, among those that the operator allows; none for adapters that are "
        "loaded.",
        default=None,
        max_items=16,
        max_length=1000,
    )
    target: tuple[Literal["all", "transformer", "transformer_2", "critic"], ...] | None = api_field(
        "The component of each adapter. Default: all.", default=None, max_items=16
    )
    strength: tuple[float, ...] | None = api_field(
        "Strength of each adapter. Default: 1.", default=None, max_items=16, minimum=-100, maximum=100
    )
    merge_mode: Literal["auto", "merge", "dynamic"] | None = api_field(
        "How it is applied: always merged into the weights, so `dynamic` is refused.", default=None
    )
    lora_alpha: tuple[int, ...] | None = api_field(
        "Alpha of each adapter, where its file has none.", default=None, max_items=16, minimum=1, maximum=1_000_000
    )


@frozen(kw_only=True)
class MergeLoraRequest(RequestFields):
    """Body of ``POST /v1/merge_lora_weights``."""

    target: Literal["all", "transformer", "transformer_2", "critic"] | None = api_field(
        "The component. Default: all.", default=None
    )
    strength: float | None = api_field(
        "Strength of each adapter. Default: as it was set.", default=None, minimum=-100, maximum=100
    )


@frozen(kw_only=True)
class UnmergeLoraRequest(RequestFields):
    """Body of ``POST /v1/unmerge_lora_weights``."""

    target: Literal["all", "transformer", "transformer_2", "critic"] | None = api_field(
        "The component. Default: all.", default=None
    )
