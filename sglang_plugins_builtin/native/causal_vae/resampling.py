"""From one level to the next: halving and doubling in space and time, and the shortcuts around whole levels."""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import nn

from .convolutions import CausalConv3d, ClipStream, DoublingConv2d, HalvingConv2d, over_time


class Downsample(nn.Module):
    """Half the pixels per side and, in time, one frame out of two; the first frame of a clip stands alone."""

    def __init__(self, channels: int, *, resamples_time: bool) -> None:
        super().__init__()
        # The checkpoint's name is resample.1: there the padding is a layer of its own.
        self.resample = nn.ModuleDict({"1": HalvingConv2d(channels, channels)})
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1)) if resamples_time else None

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return (batch, channels, 1 or frames / 2, height / 2, width / 2)."""
        stream.check()
        x = by_frame(self.resample["1"], x)
        if self.time_conv is None:
            return x
        past = stream.recall(self)
        if not stream.is_last:
            stream.keep(self, x[:, :, -1:].clone())
        if past is None:
            return x
        # Each pair of frames together with the one before it.
        return over_time(torch.cat((past, x), dim=2), self.time_conv.weight, self.time_conv.bias, step=2)


class Upsample(nn.Module):
    """Twice the pixels per side and, in time, two frames out of one; the first frame of a clip stays one.

    The convolution over time begins, with zeros before it, at the second chunk: it never sees the first frame.
    """

    def __init__(self, in_channels: int, out_channels: int, *, resamples_time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": DoublingConv2d(in_channels, out_channels)})
        self.time_conv = CausalConv3d(in_channels, 2 * in_channels, (3, 1, 1)) if resamples_time else None

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return (batch, out_channels, 1 or 2 * frames, 2 * height, 2 * width), a new tensor."""
        stream.check()
        if self.time_conv is not None and not stream.is_first:
            x = _interleave(self.time_conv(x, stream))
        return by_frame(self.resample["1"], x)


def by_frame(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Apply a layer of pictures to each frame of a clip; with channels last nothing is copied."""
    batch = x.shape[0]
    pictures = layer(x.transpose(1, 2).flatten(0, 1))
    result: torch.Tensor = pictures.view(batch, -1, *pictures.shape[1:]).transpose(1, 2)
    return result


def _interleave(pairs: torch.Tensor) -> torch.Tensor:
    """Return the frames of (batch, 2 * channels, frames, ...), both halves of the channels in turn."""
    batch, channels, frames, height, width = pairs.shape
    first, second = pairs.chunk(2, dim=1)
    clip = pairs.new_empty(batch, 2 * frames, height, width, channels // 2).permute(0, 4, 1, 2, 3)
    clip[:, :, 0::2] = first
    clip[:, :, 1::2] = second
    return clip


def add_averaged(clip: torch.Tensor, x: torch.Tensor, time: int, space: int) -> torch.Tensor:
    """Add to ``clip``, in place, what is left of ``x`` when blocks of pixels, or groups of channels, are averaged.

    A block's pixels become channels, then neighbouring channels are averaged down to as many as ``clip`` has.

    :param time: frames per block; before the first frame there are zeros.
    :param space: pixels per side of a block.
    """
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    batch, channels, frames, height, width = x.shape
    blocks = x.reshape(batch, channels, frames // time, time, height // space, space, width // space, space)
    # The places of a block behind the channels, then these in as many groups as the clip has channels.
    blocks = blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, clip.shape[1], -1, *clip.shape[2:])
    return clip.add_(blocks.mean(dim=2))


def add_repeated(clip: torch.Tensor, x: torch.Tensor, time: int, *, is_first: bool) -> torch.Tensor:
    """Add to ``clip``, in place, the pixels of ``x``, each spread over a block of 2x2 pixels in ``time`` frames.

    Where ``clip`` has fewer channels, the places of a block take different ones of them.

    :param is_first: whether this is a clip's first frame, which only the last frame of its block falls on.
    """
    channels = clip.shape[1]
    num_places = time * 4
    repeats = channels * num_places // x.shape[1]
    for place in range(num_places):
        frame, row, column = place // 4, place // 2 % 2, place % 2
        if is_first and frame < time - 1:
            continue
        target = clip if is_first else clip[:, :, frame::time]
        source = (torch.arange(channels, device=x.device) * num_places + place) // repeats
        target[:, :, :, row::2, column::2] += x.index_select(1, source)
    return clip
