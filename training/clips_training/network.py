"""The transformer and its text encoder: creation, and a forward pass that compiles well."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as functional
from attrs import frozen
from diffusers import WanTransformer3DModel
from torch import nn
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from shapes_training.optimizers import Optimizers

#: The pipeline pads the embeddings of a prompt with zeros to this length, and attends to the padding as well.
NUM_PIPELINE_TOKENS = 512


@frozen(kw_only=True)
class NetworkConfig:
    """Shape of the transformer and of the text encoder trained with it."""

    num_layers: int = 8
    #: Rows and columns of latents in a token.
    patch_size: int = 4
    num_heads: int = 4
    head_dim: int = 48
    ffn_dim: int = 512
    text_dim: int = 128
    num_text_layers: int = 3
    num_text_heads: int = 4
    #: Longest caption with its end and one token of padding; captions are padded to it while training.
    num_text_tokens: int = 26


def create_transformer(config: NetworkConfig, latent_channels: int) -> WanTransformer3DModel:
    """An untrained transformer whose blocks begin close to the identity."""
    transformer = WanTransformer3DModel(
        patch_size=(1, config.patch_size, config.patch_size),
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=latent_channels,
        out_channels=latent_channels,
        text_dim=config.text_dim,
        freq_dim=256,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        cross_attn_norm=True,
    )
    embedder = transformer.condition_embedder
    nn.init.zeros_(embedder.time_proj.weight)
    nn.init.zeros_(embedder.time_proj.bias)
    # Zero padding stays zero through the projection and in the keys: it scores 0 everywhere.
    for layer in (embedder.text_embedder.linear_1, embedder.text_embedder.linear_2):
        nn.init.zeros_(layer.bias)
    for block in transformer.blocks:
        nn.init.zeros_(block.scale_shift_table)
        # Gates; a small constant lets gradients in at once.
        block.scale_shift_table.data[:, (2, 5)] = 0.1
        block.attn2.to_out[0].weight.data.mul_(0.1)
        for layer in (block.attn2.to_k, block.attn2.to_v, block.attn2.to_out[0]):
            nn.init.zeros_(layer.bias)
        # Scores of the words spread twice as far, or five hundred zeros would drown them.
        nn.init.constant_(block.attn2.norm_k.weight, 2.0)
    nn.init.zeros_(transformer.scale_shift_table)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def create_text_encoder(config: NetworkConfig, tokenizer: T5Tokenizer) -> UMT5EncoderModel:
    """An untrained text encoder."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=config.text_dim,
            d_kv=config.text_dim // config.num_text_heads,
            d_ff=2 * config.text_dim,
            num_layers=config.num_text_layers,
            num_heads=config.num_text_heads,
            relative_attention_num_buckets=32,
            relative_attention_max_distance=64,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def encode_text(text_encoder: UMT5EncoderModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the pipeline hands to the transformer: last hidden states, zero where there is no token."""
    hidden: torch.Tensor = text_encoder(ids, mask).last_hidden_state
    return hidden * mask.unsqueeze(-1).to(hidden.dtype)


def create_optimizers(module: nn.Module, learning_rate: float, *, weight_decay: float) -> Optimizers:
    """Muon for the matrices inside the blocks of both networks, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_hidden = ("blocks." in name or ".block." in name) and "relative_attention_bias" not in name
        (matrices if is_hidden and parameter.ndim == 2 else others).append(parameter)
    return Optimizers(matrices, others, learning_rate, weight_decay)


def padding_bias(mask: torch.Tensor, num_pipeline_tokens: int = NUM_PIPELINE_TOKENS) -> torch.Tensor:
    """What to add to the scores of the text, (batch, 1, 1, tokens), so that its padding counts as the pipeline's.

    All padding has the same key and value: few of them with a larger score are as good as many.
    """
    length, num_real = mask.shape[1], mask.sum(1, keepdim=True)
    extra = torch.log((num_pipeline_tokens - num_real) / (length - num_real).float())
    return torch.where(mask.bool(), 0.0, extra)[:, None, None]


class _Block(nn.Module):
    """A block of the transformer with its parts in one graph and the bias of the padding."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block

    def forward(
        self,
        hidden: torch.Tensor,
        text: torch.Tensor,
        bias: torch.Tensor,
        modulation: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        # hidden: (batch, tokens, dim); modulation: (batch, 6, dim)
        block = self.block
        shift, scale, gate, late_shift, late_scale, late_gate = (block.scale_shift_table + modulation).chunk(6, dim=1)
        query, key, value = _project(block.attn1, block.norm1(hidden) * (1 + scale) + shift, None)
        query, key = _rotate(query, rotation), _rotate(key, rotation)
        attended = _attend(query, key, value, None)
        hidden = hidden + block.attn1.to_out[0](attended) * gate
        query, key, value = _project(block.attn2, block.norm2(hidden), text)
        attended = _attend(query, key, value, bias)
        hidden = hidden + block.attn2.to_out[0](attended)
        changed: torch.Tensor = hidden + block.ffn(block.norm3(hidden) * (1 + late_scale) + late_shift) * late_gate
        return changed


def _project(attn: Any, hidden: torch.Tensor, text: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    source = hidden if text is None else text
    parts = (attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(source)), attn.to_v(source))
    return tuple(part.unflatten(2, (attn.heads, -1)) for part in parts)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    # query, key, value: (batch, tokens, heads, head_dim)
    attended = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias
    )
    return attended.transpose(1, 2).flatten(2)


def _rotate(x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    # x: (batch, tokens, heads, head_dim); rotation: cosine and sine, each (tokens, 1, head_dim / 2)
    cosine, sine = rotation
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class Velocity(nn.Module):
    """The transformer on clips of one size: same weights and result, few tokens of padding.

    :param grid: latent frames, rows and columns.
    """

    def __init__(self, transformer: WanTransformer3DModel, grid: tuple[int, int, int], *, use_compile: bool) -> None:
        super().__init__()
        self.transformer = transformer
        cosine, sine = transformer.rope(torch.empty(1, 1, *grid))
        self.register_buffer("cosine", cosine[0, ..., 0::2].float(), persistent=False)
        self.register_buffer("sine", sine[0, ..., 1::2].float(), persistent=False)
        self.blocks = nn.ModuleList([_Block(block) for block in transformer.blocks])
        if use_compile:
            # The blocks are alike: one compilation serves all of them.
            for block in self.blocks:
                block.compile()

    def forward(
        self, latents: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Predict noise minus clip; latents: (batch, channels, frames, rows, columns), sigma: (batch,)."""
        model = self.transformer
        hidden = model.patch_embedding(latents)
        grid = hidden.shape[2:]
        hidden = hidden.flatten(2).transpose(1, 2).contiguous()
        condition, modulation, words, _ = model.condition_embedder(1000.0 * sigma, text)
        rotation = (cast(torch.Tensor, self.cosine), cast(torch.Tensor, self.sine))
        bias = padding_bias(mask)
        for block in self.blocks:
            hidden = block(hidden, words, bias, modulation.unflatten(1, (6, -1)), rotation)
        shift, scale = (model.scale_shift_table + condition.unsqueeze(1)).chunk(2, dim=1)
        patches = model.proj_out(model.norm_out(hidden) * (1 + scale) + shift)
        return _unpatch(patches, (grid[0], grid[1], grid[2]), model.config.patch_size[1])


def _unpatch(patches: torch.Tensor, grid: tuple[int, int, int], size: int) -> torch.Tensor:
    # patches: (batch, tokens, size * size * channels), of the pixels of a patch the columns fastest, then channels
    batch, _, width = patches.shape
    parts = patches.view(batch, *grid, size, size, width // size**2)
    # (batch, frames, rows, columns, row of the patch, column of the patch, channels)
    return parts.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def logit_normal_sigmas(count: int) -> torch.Tensor:
    """Noise levels: logit-normal around 0.82, with some uniform ones for the ends.

    Flat colours can be seen through a lot of noise, and what can be seen need not be
    read: only near pure noise does the caption matter, so that is where to train. The
    noisy latents are (1 - sigma) * latents + sigma * noise, as in the pipeline's scheduler.
    """
    sigmas = torch.sigmoid(1.5 + 1.3 * torch.randn(count))
    return torch.where(torch.rand(count) < 0.15, torch.rand(count), sigmas)


def grid_of(num_frames: int, size: int, spatial_factor: int) -> tuple[int, int, int]:
    """Latent frames, rows and columns of clips."""
    return math.ceil((num_frames - 1) / 4) + 1, size // spatial_factor, size // spatial_factor
