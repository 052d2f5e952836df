"""What pipelines of diffusers leave out when they call their components, and is put right here."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


def correct_calls(pipeline: Any) -> None:
    """Put right how a pipeline calls its text encoder and its VAE, where that is needed; done once, after loading."""
    components = pipeline.components
    if type(pipeline).__name__.startswith("QwenImageEdit"):
        tell_image_tokens(components["text_encoder"])
    if isinstance(components.get("vae"), torch.nn.Module):
        encode_in_own_precision(components["vae"])


def tell_image_tokens(text_encoder: Any) -> None:
    """Let a Qwen2.5-VL place the tokens of images in rows and columns, as it was trained.

    Up to version 4 transformers found these tokens by their id. Version 5 wants to be told (``mm_token_type_ids``), and
    places them in one line, as text, if it is not; the pipelines of diffusers 0.42 do not tell
    (https://github.com/huggingface/diffusers/issues/14194). Calls that tell, or bring positions, stay as they are.
    """
    image_token = getattr(text_encoder.config, "image_token_id", None)
    if image_token is None or "mm_token_type_ids" not in inspect.signature(type(text_encoder).forward).parameters:
        return

    def tell(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        ids = named.get("input_ids")
        if ids is None or named.get("image_grid_thw") is None:
            return None
        if named.get("mm_token_type_ids") is not None or named.get("position_ids") is not None:
            return None
        return arguments, {**named, "mm_token_type_ids": (ids == image_token).int()}

    text_encoder.register_forward_pre_hook(tell, with_kwargs=True)


def encode_in_own_precision(vae: Any) -> None:
    """Let a VAE take pixels in any precision, and answer in theirs.

    Several pipelines bring an image to the precision of the denoiser before they encode it, which fails where the VAE
    has another one. Calls in the VAE's own precision stay as they are.
    """
    encode: Callable[..., Any] | None = getattr(vae, "encode", None)
    if encode is None:
        return

    @wraps(encode)
    def encode_any(x: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        if not x.is_floating_point() or x.dtype == vae.dtype:
            return encode(x, *arguments, **named)
        return _in_precision(encode(x.to(vae.dtype), *arguments, **named), x.dtype)

    vae.encode = encode_any


def _in_precision(encoded: Any, dtype: torch.dtype) -> Any:
    """Return what a VAE made of an image (its class, or a tuple) with distribution or latents in ``dtype``."""
    if isinstance(encoded, torch.Tensor):
        return encoded.to(dtype)
    if isinstance(encoded, tuple):
        return tuple(_in_precision(each, dtype) for each in encoded)
    if isinstance(encoded, DiagonalGaussianDistribution):
        return DiagonalGaussianDistribution(encoded.parameters.to(dtype), deterministic=encoded.deterministic)
    for name in ("latent_dist", "latents", "latent"):
        if getattr(encoded, name, None) is not None:
            encoded[name] = _in_precision(encoded[name], dtype)
    return encoded
