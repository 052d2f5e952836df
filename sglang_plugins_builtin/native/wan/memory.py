"""How much memory a run of Wan takes, from descriptions alone, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import (
    PRECISION_BYTES,
    ExecutionOptions,
    MemoryStage,
    RunMemory,
    StreamedWeights,
    loaded_bytes,
    streamed_weights,
)

from ..causal_vae.config import CausalVaeConfig, Tiling
from ..causal_vae.memory import decode_bytes, rounding_bytes, weights_bytes
from ..requests import pays_to_join, planned
from ..scratch import blocked_attention_bytes
from .transformer_config import FLOAT32_PARTS, WanConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sglang_core import GenerationRequest, MemoryQuery, ModelDescription

#: Tokens of a prompt: longer ones are cut, and with some attention kernels each row of padding has a key.
_TEXT_TOKENS = 512
#: Of CLIP, for models that see their image through it.
_IMAGE_TOKENS = 257
#: Latents that a step holds at once: its own, the prediction's two branches, and what the schedule remembers.
_LATENTS = 7


def wan_memory(query: MemoryQuery, transformers: list[str], *, takes_image: bool) -> RunMemory:
    """Return what one clip takes, stage by stage.

    :raises ModelLoadError: if a configuration can not be read.
    """
    model, request = query.model, query.request
    vae = CausalVaeConfig.from_component(model.components["vae"])
    config = WanConfig.read(model.components["transformer"].config, "transformer/config.json")
    size = PRECISION_BYTES[query.precisions["transformer"] or "fp32"]
    frames, height, width = planned(request.num_frames), planned(request.height), planned(request.width)
    grid = vae.num_latent_frames(frames), height // vae.spatial_factor, width // vae.spatial_factor
    tokens = _num_tokens(config, grid)
    is_joined = not takes_image and pays_to_join(tokens, query.device)
    tokens_at_once = (_num_branches(request) if is_joined else 1) * tokens
    kept = _kept_bytes(config, request, grid, tokens, size, z_dim=vae.z_dim, takes_image=takes_image)
    step = max(
        int(_step_copies(config, size) * tokens_at_once * config.size * size),
        _attention_bytes(query, config, tokens, size),
    )
    dtype = query.precisions["vae"] or "fp32"
    tiling = Tiling() if query.settings.of(ExecutionOptions).vae_tiling else None
    decode = decode_bytes(vae, num_frames=frames, height=height, width=width, dtype=dtype, tiling=tiling)
    rounding = rounding_bytes(vae, num_frames=frames, height=height, width=width, dtype=dtype)
    stages = [MemoryStage(name="encode", activation_bytes=_encode_bytes(query), components=("text_encoder",))]
    if takes_image:  # encoding frames takes less than decoding them, beside the frames themselves in float32
        pixels = 2 * 4 * vae.frame_channels * frames * height * width
        stages.append(
            MemoryStage(name="encode image", activation_bytes=decode + pixels, components=("image_encoder", "vae"))
        )
    return RunMemory(
        stages=(
            *stages,
            MemoryStage(name="denoise", activation_bytes=kept + step, components=tuple(transformers)),
            MemoryStage(name="decode", activation_bytes=kept + max(decode, rounding), components=("vae",)),
        ),
        weights_bytes={
            **{name: _transformer_bytes(query, name) for name in transformers},
            "vae": weights_bytes(model.components["vae"], dtype, has_encoder=takes_image, is_single_frame=False),
        },
        streamed=_streamed(model, query.precisions, transformers),
    )


def _num_tokens(config: WanConfig, grid: tuple[int, int, int]) -> int:
    frames, rows, columns = (count // side for count, side in zip(grid, config.patch_size, strict=True))
    return frames * rows * columns


def _num_branches(request: GenerationRequest) -> int:
    return 2 if (request.guidance_scale or 1.0) > 1 else 1


def _kept_bytes(
    config: WanConfig,
    request: GenerationRequest,
    grid: tuple[int, int, int],
    tokens: int,
    size: int,
    *,
    z_dim: int,
    takes_image: bool,
) -> int:
    """Return what is computed once and kept to the end of the run."""
    frames, rows, columns = grid
    branches = _num_branches(request)
    latents = 4 * frames * rows * columns * (_LATENTS * z_dim + (2 * config.in_channels if takes_image else 0))
    keys = _TEXT_TOKENS + (_IMAGE_TOKENS if config.added_kv_proj_dim is not None else 0)
    text = branches * size * (2 * keys * config.size * config.num_layers + _TEXT_TOKENS * config.text_dim)
    modulations = 4 * 8 * config.size * planned(request.num_inference_steps)
    rotations = 16 * tokens * (config.attention_head_dim // 2)  # cosine, sine and both as a complex number
    return latents + text + modulations + rotations


def _step_copies(config: WanConfig, size: int) -> float:
    """Return the most tensors of (tokens, size) that a block holds at once.

    In the perceptron: the tokens before and after attention, its result, their norm, and the wide layer before and
    after its activation. In half precisions the rotation and the gates are computed in float32: 11 at most.
    """
    perceptron = 4 + 2 * config.ffn_dim / config.size
    return perceptron if size == 4 else max(perceptron, 11)


def _attention_bytes(query: MemoryQuery, config: WanConfig, tokens: int, size: int) -> int:
    """Return what a block holds while the blocked attention of a CPU computes; 0 elsewhere."""
    scratch = blocked_attention_bytes(query, "transformer", tokens, config.num_attention_heads)
    return scratch + 11 * tokens * config.size * size if scratch else 0


def _encode_bytes(query: MemoryQuery) -> int:
    """Return what a prompt of the greatest length takes in the text encoder."""
    config = query.model.components["text_encoder"].config
    width, wide, heads = (int(config.get(name) or 0) for name in ("d_model", "d_ff", "num_heads"))
    size = PRECISION_BYTES[query.precisions["text_encoder"] or "fp32"]
    tokens = min(_TEXT_TOKENS, longest_prompt_bytes(query.request) + 2)
    return tokens * (12 * width + 4 * wide) * size + tokens * tokens * (24 + heads * (2 * size + 4))


def longest_prompt_bytes(request: GenerationRequest) -> int:
    """Return the length of the longer prompt in UTF-8: no tokenizer makes more tokens of it."""
    return max(len(text.encode(errors="replace")) for text in (request.prompt, request.negative_prompt or ""))


def _transformer_bytes(query: MemoryQuery, name: str) -> int:
    component, precision = query.model.components[name], query.precisions[name]
    stays = loaded_bytes(component, "fp32", keeps=_stays_float32)
    return stays + loaded_bytes(component, precision, keeps=lambda stored: not _stays_float32(stored))


def _stays_float32(name: str) -> bool:
    return not FLOAT32_PARTS.isdisjoint(name.split("."))


def _streamed(
    model: ModelDescription, precisions: Mapping[str, str | None], transformers: list[str]
) -> dict[str, StreamedWeights]:
    found = {
        name: streamed_weights(model.components[name], precisions[name]) for name in ("text_encoder", *transformers)
    }
    return {name: streamed for name, streamed in found.items() if streamed is not None}
