"""How much memory a run of Qwen-Image takes, from descriptions alone, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang_core import PRECISION_BYTES, ExecutionOptions, MemoryStage, RunMemory, loaded_bytes, streamed_weights

from ..causal_vae.config import CausalVaeConfig, Tiling
from ..causal_vae.memory import decode_bytes, rounding_bytes, weights_bytes
from ..requests import pays_to_join, planned
from ..scratch import blocked_attention_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sglang_core import GenerationRequest, MemoryQuery

#: Pixels that a reference image is brought to, with what rounding its sides may add.
_REFERENCE_PIXELS = 1056 * 1056
#: Pixels of a patch of the vision tower, and tensors of (patches, width) that it holds at once.
_VISION_PATCH, _VISION_COPIES = 14 * 14, 24
#: Tokens that the template adds to a prompt.
_TEMPLATE_TOKENS = 96
#: Tokens of the longest prompt that is taken.
_LONGEST_PROMPT = 1024
#: Pixels of a token's side, over those of a latent.
_PACKED = 2
#: Tensors of (tokens, size) that a block holds at once, in the perceptron of the image: the tokens before the block and
#: after attention, its result, their norm, and the four-fold layer before and after its activation.
_STEP_COPIES = 12
#: The same while blocked attention of a CPU computes, with its copies of query, key and value.
_BLOCKED_COPIES = 13
#: Parts of blocks that only ``modulations`` uses: streaming leaves them in host memory.
_USED_ONCE = {"img_mod", "txt_mod"}


def qwen_image_memory(query: MemoryQuery, *, takes_image: bool) -> RunMemory:
    """Return what one picture takes, stage by stage.

    :raises ModelLoadError: if the configuration of the autoencoder can not be read.
    """
    model, request = query.model, query.request
    vae = CausalVaeConfig.from_component(model.components["vae"])
    dtype = query.precisions["vae"] or "fp32"
    height, width = planned(request.height), planned(request.width)
    num_references = max(len(request.image_path), 1) if takes_image else 0
    tiling = Tiling() if query.settings.of(ExecutionOptions).vae_tiling else None
    decode = decode_bytes(vae, num_frames=1, height=height, width=width, dtype=dtype, tiling=tiling)
    rounding = rounding_bytes(vae, num_frames=1, height=height, width=width, dtype=dtype)
    pixels = (vae.spatial_factor * _PACKED) ** 2
    tokens = height * width // pixels + num_references * (_REFERENCE_PIXELS // pixels)
    is_joined = not num_references and pays_to_join(tokens, query.device)
    samples = _num_branches(request) if is_joined else 1
    kept = _kept_bytes(query, tokens, samples)
    stages = [
        MemoryStage(
            name="encode",
            activation_bytes=_encode_bytes(query, num_references),
            components=("text_encoder",),
        )
    ]
    starts = bool(request.image_path) and not takes_image
    if takes_image or starts:  # encoding a picture takes less than decoding it
        side = round(_REFERENCE_PIXELS**0.5)
        high, wide = (height, width) if starts else (side, side)
        encode = decode_bytes(vae, num_frames=1, height=high, width=wide, dtype=dtype, tiling=tiling)
        stages.append(MemoryStage(name="encode images", activation_bytes=encode, components=("vae",)))
    precisions, components = query.precisions, model.components

    def is_read(name: str) -> bool:
        return _is_read(name, takes_image=takes_image)

    streamed = {
        "transformer": streamed_weights(
            components["transformer"],
            precisions["transformer"],
            keeps=lambda name: _USED_ONCE.isdisjoint(name.split(".")),
        ),
        "text_encoder": streamed_weights(components["text_encoder"], precisions["text_encoder"], keeps=is_read),
    }
    return RunMemory(
        stages=(
            *stages,
            MemoryStage(
                name="denoise", activation_bytes=kept + _step_bytes(query, tokens, samples), components=("transformer",)
            ),
            MemoryStage(name="decode", activation_bytes=kept + max(decode, rounding), components=("vae",)),
        ),
        weights_bytes={
            "transformer": loaded_bytes(
                components["transformer"],
                precisions["transformer"],
                keeps=lambda name: not name.startswith(_dropped_parts(components["transformer"].config)),
            ),
            "text_encoder": loaded_bytes(components["text_encoder"], precisions["text_encoder"], keeps=is_read),
            "vae": weights_bytes(components["vae"], dtype, has_encoder=takes_image or starts, is_single_frame=True),
        },
        streamed={name: each for name, each in streamed.items() if each is not None},
    )


def _is_read(name: str, *, takes_image: bool) -> bool:
    if name.startswith("lm_head."):
        return False
    return takes_image or not name.startswith(("visual.", "model.visual."))


def _dropped_parts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the names of those weights begin that make the text after the last block, which nobody uses."""
    (layers,) = _numbers(config, num_layers=60)
    parts = ("txt_mlp.", "attn.to_add_out.", "attn.add_q_proj.", "attn.norm_added_q.")
    return tuple(f"transformer_blocks.{layers - 1}.{part}" for part in parts)


def _kept_bytes(query: MemoryQuery, tokens: int, samples: int) -> int:
    """Return what is computed once and kept to the end of the run; ``samples`` are predicted at once."""
    request, config = query.request, query.model.components["transformer"].config
    size = PRECISION_BYTES[query.precisions["transformer"] or "fp32"]
    heads, head_dim = _numbers(config, num_attention_heads=24, attention_head_dim=128)
    channels, layers, text_width = _numbers(config, in_channels=64, num_layers=60, joint_attention_dim=3584)
    text, branches = _text_tokens(request), _num_branches(request)
    # Image and text, before attention and perceptron: shift, scale, gate, and the scale before 1 was added.
    modulations = planned(request.num_inference_steps) * layers * 16 * heads * head_dim * size
    rotations = 16 * (tokens + text) * (head_dim // 2)  # cosine, sine and both as a complex number
    texts = text * (heads * head_dim + text_width) * size
    padded = samples * texts if samples > 1 else 0  # texts of one length, for one batch
    latents = (4 + 2 * samples) * 4 * tokens * channels
    return modulations + branches * (rotations + texts) + padded + latents


def _step_bytes(query: MemoryQuery, tokens: int, samples: int) -> int:
    config = query.model.components["transformer"].config
    size = PRECISION_BYTES[query.precisions["transformer"] or "fp32"]
    heads, head_dim = _numbers(config, num_attention_heads=24, attention_head_dim=128)
    row = heads * head_dim * size
    text = _text_tokens(query.request)
    scratch = blocked_attention_bytes(query, "transformer", tokens + text, samples * heads)
    image, words = samples * tokens * row, samples * text * row
    return max(_STEP_COPIES * image, scratch and scratch + _BLOCKED_COPIES * image) + 6 * words


def _encode_bytes(query: MemoryQuery, num_images: int) -> int:
    """Return what a prompt, and images in it, take in the text encoder."""
    config: Mapping[str, Any] = query.model.components["text_encoder"].config
    language, vision = config.get("text_config") or config, config.get("vision_config") or {}
    width, wide, heads = _numbers(language, hidden_size=3584, intermediate_size=18944, num_attention_heads=28)
    (vision_width,) = _numbers(vision, hidden_size=1280)
    size = PRECISION_BYTES[query.precisions["text_encoder"] or "fp32"]
    patches = num_images * (_REFERENCE_PIXELS // _VISION_PATCH)
    tokens = _text_tokens(query.request) + patches // 4
    seeing = _VISION_COPIES * patches * vision_width * size
    return max(seeing, tokens * (16 * width + 4 * wide) * size + (4 * heads * tokens * tokens if num_images else 0))


def _text_tokens(request: GenerationRequest) -> int:
    """Return the most tokens of a prompt: no tokenizer makes more of it than it has bytes in UTF-8."""
    texts = (request.prompt, request.negative_prompt or "")
    return min(max(len(text.encode(errors="replace")) for text in texts), _LONGEST_PROMPT) + _TEMPLATE_TOKENS


def _num_branches(request: GenerationRequest) -> int:
    return 2 if request.negative_prompt is not None and (request.guidance_scale or 1.0) > 1 else 1


def _numbers(config: Mapping[str, Any], **defaults: int) -> list[int]:
    """Return whole numbers of a configuration that may hold anything."""
    found = [config.get(name) for name in defaults]
    return [
        value if type(value) is int and value > 0 else default
        for value, default in zip(found, defaults.values(), strict=True)
    ]
