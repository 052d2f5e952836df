"""Recommended request values of well-known models, for repos that do not bring their own.

The values are those that SGLang Diffusion 0.5.23 registers, for the families that diffusers has a pipeline class for,
with two corrections: image models without a registered size use 1024 x 1024, and the scale of models whose guidance is
embedded is the embedded one, because that is what ``guidance_scale`` means in their diffusers pipelines.
"""

from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType

SamplingValue = int | float | str


def _image(steps: int, guidance: float, side: int | None = 1024, **more: SamplingValue) -> dict[str, SamplingValue]:
    """Return the values of an image model; ``side=None`` where the size comes from the input image."""
    size: dict[str, SamplingValue] = {} if side is None else {"width": side, "height": side}
    return {**size, "num_inference_steps": steps, "guidance_scale": guidance, **more}


def _video(
    size: tuple[int, int], frames: int, fps: int, steps: int, guidance: float, **more: SamplingValue
) -> dict[str, SamplingValue]:
    """Return the values of a video model; ``size`` is (width, height) in pixels."""
    clip: dict[str, SamplingValue] = {"width": size[0], "height": size[1], "num_frames": frames, "fps": fps}
    return {**clip, "num_inference_steps": steps, "guidance_scale": guidance, **more}


_P480, _P720 = (832, 480), (1280, 720)
_QWEN_IMAGE = _image(50, 4.0, negative_prompt=" ")
_QWEN_EDIT_PLUS = _image(40, 4.0, None, negative_prompt=" ")
_SD3 = _image(50, 7.0, negative_prompt=" ")
_SANA_512, _SANA_1024 = _image(20, 4.5, 512), _image(20, 4.5)
_KLEIN, _KLEIN_BASE = _image(4, 1.0), _image(50, 4.0, negative_prompt="")
_COSMOS_3: Mapping[str, SamplingValue] = {
    "num_frames": 81,
    "fps": 24,
    "num_inference_steps": 35,
    "guidance_scale": 4.0,
}
_KANDINSKY_6_SIZE = (768, 512)

#: Request values by hub id.
KNOWN_MODELS: Mapping[str, Mapping[str, SamplingValue]] = MappingProxyType(
    {
        "AIDC-AI/Ovis-Image-7B": _image(30, 7.5),
        "BestWishYsh/Helios-Base": _video((640, 384), 99, 24, 50, 5.0),
        "BestWishYsh/Helios-Distilled": _video((640, 384), 99, 24, 10, 1.0),
        "BestWishYsh/Helios-Mid": _video((640, 384), 99, 24, 20, 5.0),
        "Efficient-Large-Model/SANA-Video_2B_480p_diffusers": _video(_P480, 81, 16, 50, 6.0),
        "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers": _SANA_1024,
        "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers": _SANA_1024,
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers": _SANA_1024,
        "Efficient-Large-Model/Sana_1600M_512px_diffusers": _SANA_512,
        "Efficient-Large-Model/Sana_600M_1024px_diffusers": _SANA_1024,
        "Efficient-Large-Model/Sana_600M_512px_diffusers": _SANA_512,
        "Efficient-Large-Model/SANA-Video_2.0_5B_720p": _video((1280, 736), 193, 24, 50, 8.0),
        "Efficient-Large-Model/SANA-WM_bidirectional": _video((1280, 704), 49, 16, 20, 4.5),
        "Efficient-Large-Model/SANA-WM_streaming": _video((1280, 704), 49, 16, 20, 4.5),
        "FastVideo/FastHunyuan-diffusers": _video(_P720, 125, 24, 6, 6.0, true_cfg_scale=1.0),
        "FastVideo/FastWan2.1-T2V-1.3B-Diffusers": _video(_P480, 61, 16, 3, 3.0),
        "FireRedTeam/FireRed-Image-Edit-1.0": _QWEN_EDIT_PLUS,
        "FireRedTeam/FireRed-Image-Edit-1.1": _QWEN_EDIT_PLUS,
        "Lightricks/LTX-2": _video((768, 512), 121, 24, 40, 4.0),
        "Lightricks/LTX-2.3": _video((768, 512), 121, 24, 30, 3.0),
        "Qwen/Qwen-Image": _QWEN_IMAGE,
        "Qwen/Qwen-Image-2.1": _image(40, 1.0),
        "Qwen/Qwen-Image-2.1-Turbo": _image(40, 1.0),
        "Qwen/Qwen-Image-2512": _QWEN_IMAGE,
        "Qwen/Qwen-Image-Edit": _image(50, 4.0, None, negative_prompt=" "),
        "Qwen/Qwen-Image-Edit-2509": _QWEN_EDIT_PLUS,
        "Qwen/Qwen-Image-Edit-2511": _QWEN_EDIT_PLUS,
        "Qwen/Qwen-Image-Layered": _image(50, 4.0, 640, negative_prompt=" "),
        "Tongyi-MAI/Z-Image": _image(50, 5.0),
        "Tongyi-MAI/Z-Image-Turbo": _image(9, 0.0),
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": _video(_P480, 81, 16, 50, 5.0),
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": _video(_P720, 81, 16, 50, 5.0),
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": _video(_P480, 81, 16, 50, 3.0),
        "Wan-AI/Wan2.1-T2V-14B-Diffusers": _video(_P720, 81, 16, 50, 5.0),
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers": _video(_P720, 81, 16, 40, 3.5, guidance_scale_2=3.5),
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers": _video(_P720, 81, 16, 40, 4.0, guidance_scale_2=3.0),
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers": _video((1280, 704), 121, 24, 50, 5.0),
        "baidu/ERNIE-Image": _image(50, 5.0),
        "baidu/ERNIE-Image-Turbo": _image(50, 5.0),
        "black-forest-labs/FLUX.1-dev": _image(50, 3.5),
        "black-forest-labs/FLUX.2-dev": _image(50, 4.0),
        "black-forest-labs/FLUX.2-klein-4B": _KLEIN,
        "black-forest-labs/FLUX.2-klein-9B": _KLEIN,
        "black-forest-labs/FLUX.2-klein-base-4B": _KLEIN_BASE,
        "black-forest-labs/FLUX.2-klein-base-9B": _KLEIN_BASE,
        "hunyuanvideo-community/HunyuanVideo": _video(_P720, 125, 24, 50, 6.0, true_cfg_scale=1.0),
        "ideogram-ai/ideogram-4-fp8": _image(20, 7.0),
        "ideogram-ai/ideogram-4-nf4": _image(20, 7.0),
        "jdopensource/JoyAI-Image-Edit-Diffusers": _image(40, 4.0, None),
        "kandinskylab/Kandinsky-6.0-Pro-5s-Diffusers": _video(_KANDINSKY_6_SIZE, 121, 24, 50, 5.0),
        "krea/Krea-2": _image(8, 1.0),
        "meituan-longcat/LongCat-Image": _image(50, 4.5),
        "meituan-longcat/LongCat-Image-Edit": _image(50, 4.5, None),
        "nvidia/Cosmos3-Nano": _COSMOS_3,
        "nvidia/Cosmos3-Super": _COSMOS_3,
        "stabilityai/stable-diffusion-3-medium-diffusers": _SD3,
        "stabilityai/stable-diffusion-3.5-large": _SD3,
        "stabilityai/stable-diffusion-3.5-medium": _SD3,
        "zai-org/GLM-Image": _image(30, 1.5),
    }
)


def known_sampling_values(path: str) -> Mapping[str, SamplingValue]:
    """Return the recommended values of the model that a path or hub id names, possibly none.

    An exact hub id comes first; then the longest known name (the part after the slash) that the last part of the path
    contains, in any case. A folder of the hub's cache (``models--org--name/snapshots/...``) counts as its id.
    """
    parts = PurePath(path.replace("\\", "/")).parts
    cached = next((part for part in reversed(parts) if part.startswith("models--")), None)
    hub_id = cached.removeprefix("models--").replace("--", "/", 1) if cached else path
    if hub_id in KNOWN_MODELS:
        return KNOWN_MODELS[hub_id]
    last = (hub_id if cached else parts[-1] if parts else "").rpartition("/")[2].lower()
    short_names = sorted(((known.partition("/")[2], known) for known in KNOWN_MODELS), key=lambda pair: -len(pair[0]))
    return next((KNOWN_MODELS[known] for name, known in short_names if name.lower() in last), {})
