"""The transformer and its text encoder: creation, and a forward pass that compiles well."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as functional
from attrs import frozen
from diffusers import QwenImageTransformer2DModel
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from .tokenizer import NUM_DROPPED_TOKENS


@frozen(kw_only=True)
class NetworkConfig:
    """Shape of the transformer and of the text encoder trained with it."""

    num_layers: int = 6
    num_heads: int = 4
    head_dim: int = 48
    axes_dims_rope: tuple[int, int, int] = (16, 16, 16)
    text_dim: int = 128
    num_text_layers: int = 2
    num_text_heads: int = 4
    #: Longest caption with the end of the template; captions are padded to it while training.
    num_text_tokens: int = 22


def create_transformer(config: NetworkConfig, latent_channels: int) -> QwenImageTransformer2DModel:
    """An untrained transformer whose blocks begin as the identity."""
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=latent_channels * 4,
        out_channels=latent_channels,
        num_layers=config.num_layers,
        attention_head_dim=config.head_dim,
        num_attention_heads=config.num_heads,
        joint_attention_dim=config.text_dim,
        axes_dims_rope=config.axes_dims_rope,
    )
    for block in transformer.transformer_blocks:
        for modulation in (block.img_mod, block.txt_mod):
            nn.init.zeros_(modulation[1].weight)
            nn.init.zeros_(modulation[1].bias)
            # Gates are the last third of each half; a small constant lets gradients in at once.
            dim = modulation[1].bias.shape[0] // 6
            for start in (2 * dim, 5 * dim):
                nn.init.constant_(modulation[1].bias[start : start + dim], 0.1)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def create_text_encoder(config: NetworkConfig, tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained text encoder; its vision tower is as small as the class allows and unused."""
    head_dim = config.text_dim // config.num_text_heads
    section = head_dim // 6
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": config.text_dim,
                "intermediate_size": 3 * config.text_dim,
                "num_hidden_layers": config.num_text_layers,
                "num_attention_heads": config.num_text_heads,
                "num_key_value_heads": config.num_text_heads,
                "max_position_embeddings": 2048,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [head_dim // 2 - 2 * section, section, section],
                },
                "bos_token_id": ids["<|endoftext|>"],
                "eos_token_id": ids["<|im_end|>"],
                "pad_token_id": ids["<|endoftext|>"],
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 1,
                "patch_size": 2,
                "out_hidden_size": config.text_dim,
                "fullatt_block_indexes": [0],
                "window_size": 8,
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=True,
        )
    )


def encode_text(
    text_encoder: Qwen2_5_VLForConditionalGeneration, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """What the pipeline hands to the transformer: last hidden states after the template's beginning."""
    output = text_encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    hidden: torch.Tensor = output.hidden_states[-1][:, NUM_DROPPED_TOKENS:]
    return hidden


class RealRotaryAttention:
    """The model's joint attention with rotations in real numbers, which a compiler can fuse."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor,
        attention_mask: None = None,
        *,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # hidden_states: (batch, image tokens, dim); encoder_hidden_states: (batch, text tokens, dim)
        heads, num_text = attn.heads, encoder_hidden_states.shape[1]
        image, text = hidden_states, encoder_hidden_states
        query = torch.cat(
            [
                attn.norm_added_q(attn.add_q_proj(text).unflatten(-1, (heads, -1))),
                attn.norm_q(attn.to_q(image).unflatten(-1, (heads, -1))),
            ],
            dim=1,
        )
        key = torch.cat(
            [
                attn.norm_added_k(attn.add_k_proj(text).unflatten(-1, (heads, -1))),
                attn.norm_k(attn.to_k(image).unflatten(-1, (heads, -1))),
            ],
            dim=1,
        )
        value = torch.cat([attn.add_v_proj(text), attn.to_v(image)], dim=1).view(query.shape)
        query, key = _rotate(query, image_rotary_emb), _rotate(key, image_rotary_emb)
        # encoder_hidden_states_mask: (batch, 1, 1, text + image tokens), added to the scores
        attended = functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=encoder_hidden_states_mask.to(query.dtype),
        )
        attended = attended.transpose(1, 2).flatten(2)
        return attn.to_out[0](attended[:, num_text:]), attn.to_add_out(attended[:, :num_text])


def _rotate(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    # x: (batch, tokens, heads, head_dim); rotation: cosine and sine, each (tokens, 1, head_dim / 2)
    cosine, sine = (part.to(x.dtype) for part in rotation)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class Velocity(nn.Module):
    """The transformer on pictures of one size: same weights and result, fixed shapes, no complex numbers."""

    def __init__(self, transformer: QwenImageTransformer2DModel, grid: int, num_text_tokens: int) -> None:
        super().__init__()
        self.transformer = transformer
        image, text = transformer.pos_embed(
            [(1, grid, grid)], device=torch.device("cpu"), max_txt_seq_len=num_text_tokens
        )
        angles = torch.cat([text, image]).unsqueeze(1)
        self.register_buffer("cosine", angles.real.clone(), persistent=False)
        self.register_buffer("sine", angles.imag.clone(), persistent=False)
        for block in transformer.transformer_blocks:
            block.attn.processor = RealRotaryAttention()

    def forward(
        self, latents: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> torch.Tensor:
        """Predict noise minus picture; latents: (batch, tokens, channels * 4), sigma: (batch,)."""
        model = self.transformer
        num_image_tokens = latents.shape[1]
        hidden, words = model.img_in(latents), model.txt_in(model.txt_norm(text))
        condition = model.time_text_embed(sigma, hidden)
        mask = functional.pad((text_mask.float() - 1.0) * 1e4, (0, num_image_tokens))[:, None, None]
        rotation = (cast(torch.Tensor, self.cosine), cast(torch.Tensor, self.sine))
        for block in model.transformer_blocks:
            words, hidden = block(hidden, words, mask, condition, rotation)
        velocity: torch.Tensor = model.proj_out(model.norm_out(hidden, condition))
        return velocity


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(batch, channels, height, width) to (batch, tokens, channels * 4), as the pipeline does."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height // 2 * (width // 2), channels * 4)
