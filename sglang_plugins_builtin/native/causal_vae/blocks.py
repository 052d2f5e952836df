"""What every level of the autoencoder is made of: norm, residual block, attention of one frame."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import nn

from .convolutions import CausalConv3d, ClipStream, Conv2d, PointwiseConv3d

#: Keeps pixels that are zero in all channels zero, in any precision, and is far below any other's mean square.
_NORM_EPS = 1e-26


class ChannelNorm(nn.Module):
    """Each pixel's channels divided by their root mean square, times ``gamma``.

    :param num_dims: how many dimensions follow the channels, as the stored ``gamma`` has them.
    """

    def __init__(self, channels: int, num_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *(1,) * num_dims), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a new tensor of the shape, dtype and memory layout of ``x``."""
        channels = x.shape[1]
        if x.dtype in (torch.float16, torch.bfloat16) or x.device.type != "cpu":
            # One kernel on accelerators; computed in float32 and rounded once.
            normed: torch.Tensor = F.rms_norm(x.movedim(1, -1), [channels], self.gamma.view(-1), _NORM_EPS)
            return normed.movedim(-1, 1)
        # On the CPU that function is a chain of passes over memory, of which these are the needed ones.
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(channels**0.5 * _NORM_EPS**0.5)
        scaled: torch.Tensor = x * size.reciprocal_().mul_(channels**0.5)
        return scaled.mul_(self.gamma.view(-1, *(1,) * (x.dim() - 2)))


class NormAndActivation(ChannelNorm):
    """The norm followed by SiLU, as it stands before every convolution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a new tensor of the shape, dtype and memory layout of ``x``."""
        normed: torch.Tensor = super().forward(x)
        return F.silu(normed, inplace=True)


class ResidualBlock(nn.Module):
    """Two causal convolutions, each after a norm, around which the input is added."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = NormAndActivation(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = NormAndActivation(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.conv_shortcut = PointwiseConv3d(in_channels, out_channels) if in_channels != out_channels else None

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return (batch, out_channels, frames, height, width), a new tensor."""
        inner = self.conv1(self.norm1(x), stream)
        inner = self.norm2(inner)  # assigned, not passed on, so that what it was is freed before the convolution
        inner = self.conv2(inner, stream)
        result: torch.Tensor = inner.add_(x if self.conv_shortcut is None else self.conv_shortcut(x))
        return result


class FrameAttention(nn.Module):
    """Attention among the pixels of each frame, with one head; the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, num_dims=2)
        self.to_qkv = Conv2d(channels, 3 * channels, (1, 1))
        self.proj = Conv2d(channels, channels, (1, 1))

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return a tensor of the shape of ``x``, (batch, channels, frames, height, width)."""
        stream.check()
        batch, channels, frames, height, width = x.shape
        # pixels: (batch * frames, 1 head, height * width, channels); a convolution of one pixel is a linear layer
        pixels = self.norm(x).permute(0, 2, 3, 4, 1).reshape(batch * frames, 1, height * width, channels)
        qkv = F.linear(pixels, self.to_qkv.weight.flatten(1), self.to_qkv.bias)
        query, key, value = qkv.chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value)
        result = F.linear(attended, self.proj.weight.flatten(1), self.proj.bias)
        return result.view(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3).add_(x)


class MidBlock(nn.Module):
    """The bottom of encoder and decoder: a residual block, attention, a residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([FrameAttention(channels)])
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels), ResidualBlock(channels, channels)])

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return a tensor of the shape of ``x``."""
        for layer in (self.resnets[0], self.attentions[0], self.resnets[1]):
            x = layer(x, stream)
        return x
