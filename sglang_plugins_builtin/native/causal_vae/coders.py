"""The encoder and the decoder, with the parameter names of the checkpoints."""

from itertools import pairwise

import torch
from torch import nn

from .blocks import MidBlock, NormAndActivation, ResidualBlock
from .config import CausalVaeConfig, Level
from .convolutions import CausalConv3d, ClipStream
from .resampling import Downsample, Upsample, add_averaged, add_repeated


class Encoder(nn.Module):
    """From (patches of) frames to the mean and log-variance of the latents, before ``quant_conv``."""

    def __init__(self, config: CausalVaeConfig) -> None:
        super().__init__()
        levels = config.encoder_levels
        width = levels[-1].out_channels
        self.conv_in = CausalConv3d(config.in_channels, levels[0].in_channels)
        self.down_blocks = nn.ModuleList(
            [ResidualDownLevel(level, config.num_res_blocks) for level in levels]
            if config.is_residual
            else _plain_down_layers(config)
        )
        self.mid_block = MidBlock(width)
        self.norm_out = NormAndActivation(width)
        self.conv_out = CausalConv3d(width, 2 * config.z_dim)

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return (batch, 2 * z_dim, latent frames, ...) for the next chunk.

        :param x: (batch, in_channels, frames, height, width): one frame first, then ``temporal_factor`` at a time.
        """
        x = self.conv_in(x, stream)
        for layer in self.down_blocks:
            x = layer(x, stream)
        x = self.mid_block(x, stream)
        result: torch.Tensor = self.conv_out(self.norm_out(x), stream)
        return result


def _plain_down_layers(config: CausalVaeConfig) -> list[nn.Module]:
    """Return the layers of all levels in one list, as the checkpoints without shortcuts number them."""
    layers: list[nn.Module] = []
    for level in config.encoder_levels:
        layers.extend(_resnets(level, config.num_res_blocks))
        if level.resamples_space:
            layers.append(Downsample(level.out_channels, resamples_time=level.resamples_time))
    return layers


class ResidualDownLevel(nn.Module):
    """A level of the encoder whose averaged input is added to its output."""

    def __init__(self, level: Level, num_res_blocks: int) -> None:
        super().__init__()
        self.resnets = _resnets(level, num_res_blocks)
        self.downsampler = (
            Downsample(level.out_channels, resamples_time=level.resamples_time) if level.resamples_space else None
        )
        self._block = (2 if level.resamples_time else 1, 2 if level.resamples_space else 1)

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return the clip of the next level."""
        given = x
        for resnet in self.resnets:
            x = resnet(x, stream)
        if self.downsampler is not None:
            x = self.downsampler(x, stream)
        return add_averaged(x, given, *self._block)


class Decoder(nn.Module):
    """From latents, after ``post_quant_conv``, to (patches of) frames, not yet clamped."""

    def __init__(self, config: CausalVaeConfig) -> None:
        super().__init__()
        levels = config.decoder_levels
        self.conv_in = CausalConv3d(config.z_dim, levels[0].in_channels)
        self.mid_block = MidBlock(levels[0].in_channels)
        kind = ResidualUpLevel if config.is_residual else UpLevel
        self.up_blocks = nn.ModuleList(kind(level, config.num_res_blocks) for level in levels)
        self.norm_out = NormAndActivation(levels[-1].out_channels)
        self.conv_out = CausalConv3d(levels[-1].out_channels, config.out_channels)

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return (batch, out_channels, 1 or temporal_factor, ...) for the next latent frame.

        :param x: (batch, z_dim, 1, height, width).
        """
        x = self.conv_in(x, stream)
        x = self.mid_block(x, stream)
        for level in self.up_blocks:
            x = level(x, stream)
        result: torch.Tensor = self.conv_out(self.norm_out(x), stream)
        return result


class UpLevel(nn.Module):
    """A level of the decoder."""

    def __init__(self, level: Level, num_res_blocks: int) -> None:
        super().__init__()
        self.resnets = _resnets(level, num_res_blocks + 1)
        self.upsamplers = (
            nn.ModuleList([Upsample(level.out_channels, level.out_channels // 2, resamples_time=level.resamples_time)])
            if level.resamples_space
            else None
        )

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return the clip of the next level."""
        for layer in (*self.resnets, *(self.upsamplers or ())):
            x = layer(x, stream)
        return x


class ResidualUpLevel(nn.Module):
    """A level of the decoder whose repeated input is added to its output; the last one is plain."""

    def __init__(self, level: Level, num_res_blocks: int) -> None:
        super().__init__()
        self.resnets = _resnets(level, num_res_blocks + 1)
        self.upsampler = (
            Upsample(level.out_channels, level.out_channels, resamples_time=level.resamples_time)
            if level.resamples_space
            else None
        )
        self._time = 2 if level.resamples_time else 1

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return the clip of the next level."""
        given = x
        for resnet in self.resnets:
            x = resnet(x, stream)
        if self.upsampler is None:
            return x
        return add_repeated(self.upsampler(x, stream), given, self._time, is_first=stream.is_first)


def _resnets(level: Level, count: int) -> nn.ModuleList:
    """Return residual blocks of which the first changes the width."""
    widths = [level.in_channels] + [level.out_channels] * count
    return nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))
