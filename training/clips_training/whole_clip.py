"""The causal video autoencoder on a whole clip in one pass.

The model itself works through a clip in pieces, one latent frame each, and keeps what the
next piece needs to see. Causal convolutions over the whole clip give the same, in graphs
that are compiled once, with larger convolutions and without copies.
"""

from __future__ import annotations

from types import MethodType

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample


def use_whole_clips(vae: AutoencoderKLWan) -> None:
    """Make encoder and decoder take whole clips of 4 n + 1 frames, in place.

    Only ``encode_mean`` and ``decode_unclamped`` work afterwards. Channels-last weights are
    faster, and travel with the parameters.
    """
    for parameter in vae.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    for module in vae.modules():
        if isinstance(module, WanResample) and module.mode == "downsample3d":
            module.forward = MethodType(_halve, module)
        elif isinstance(module, WanResample) and module.mode == "upsample3d":
            module.forward = MethodType(_double, module)


def _halve(
    self: WanResample, x: torch.Tensor, feat_cache: None = None, feat_idx: list[int] | None = None
) -> torch.Tensor:
    # x: (batch, channels, frames, height, width); the first frame stands for itself
    x = _resample_frames(self, x)
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


def _double(
    self: WanResample, x: torch.Tensor, feat_cache: None = None, feat_idx: list[int] | None = None
) -> torch.Tensor:
    # The first frame stays one, and is hidden from the convolution of the later ones.
    if x.shape[2] > 1:
        pairs = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
        # pairs: (batch, 2, channels, frames, height, width)
        x = torch.cat([x[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
    return _resample_frames(self, x)


def _resample_frames(self: WanResample, x: torch.Tensor) -> torch.Tensor:
    batch = x.shape[0]
    frames = self.resample(x.transpose(1, 2).flatten(0, 1))
    resampled: torch.Tensor = frames.unflatten(0, (batch, -1)).transpose(1, 2)
    return resampled


def as_clips(frames: torch.Tensor) -> torch.Tensor:
    """Turn (batch, frames, height, width, 3) bytes into (batch, 3, frames, height, width) in [-1, 1]."""
    clips = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    return clips.contiguous(memory_format=torch.channels_last_3d)


def encode_mean(vae: AutoencoderKLWan, clips: torch.Tensor) -> torch.Tensor:
    """The mean of the posterior, (batch, z_dim, latent frames, latent rows, latent columns), not normalised."""
    mean: torch.Tensor = vae.quant_conv(vae.encoder(clips))[:, : vae.config.z_dim]
    return mean


def decode_unclamped(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Like ``vae.decode``, without the clamp that has no gradient outside [-1, 1]."""
    clips: torch.Tensor = vae.decoder(vae.post_quant_conv(latents))
    return clips
