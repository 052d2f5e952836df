"""Convolutions over clips that arrive in chunks, with the memory of the frames before.

Parameters are left empty: weights are assigned by name afterwards, so nothing here may read a value when it is made.
Clips are (batch, channels, frames, height, width), best in the channels-last memory layout, in which a norm over
channels, a convolution and the view as single pictures all read memory in order.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import nn

#: How many frames before its own a causal convolution with a kernel of 3 frames sees.
_NUM_PAST_FRAMES = 2


class ClipStream:
    """One clip on its way through the layers, chunk by chunk: what each layer still remembers of it.

    :param check: called before each convolution; may raise to stop.
    """

    def __init__(self, num_chunks: int, check: Callable[[], None] | None = None) -> None:
        self._num_chunks = num_chunks
        self._index = 0
        self._past: dict[nn.Module, torch.Tensor] = {}
        self._check = check

    def chunks(self) -> Iterator[int]:
        """Yield the chunk numbers; a chunk is passed through all layers before the next."""
        for index in range(self._num_chunks):
            self._index = index
            yield index

    @property
    def is_first(self) -> bool:
        """Return whether this is the clip's first chunk, a single frame."""
        return self._index == 0

    @property
    def is_last(self) -> bool:
        """Return whether nothing comes after this chunk."""
        return self._index == self._num_chunks - 1

    def check(self) -> None:
        """Raise if the work is to be stopped."""
        if self._check is not None:
            self._check()

    def recall(self, layer: nn.Module) -> torch.Tensor | None:
        """Return, and forget, the frames that a layer has kept from the chunks before."""
        return self._past.pop(layer, None)

    def keep(self, layer: nn.Module, frames: torch.Tensor) -> None:
        """Remember frames for the layer's next chunk."""
        self._past[layer] = frames


class Convolution(nn.Module):
    """Weight and bias of a convolution, empty until they are assigned.

    :param kernel: its size, one number per dimension.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_channels), requires_grad=False)

    def _repack(self, weight: torch.Tensor) -> None:
        memory_format = torch.channels_last_3d if weight.dim() == 5 else torch.channels_last
        self.weight = nn.Parameter(weight.detach().contiguous(memory_format=memory_format), requires_grad=False)

    def prepare(self, *, single_frame: bool) -> None:
        """Lay the weight out as it is read; on CPU worth 1.3 in fp32.

        :param single_frame: whether no clip of more than one frame will come.
        """
        self._repack(self.weight)


class Conv2d(Convolution):
    """A plain convolution of pictures (batch, channels, height, width), whose size it keeps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, out_channels, height, width)."""
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class HalvingConv2d(Convolution):
    """A 3x3 convolution at every second pixel, seeing zeros only beyond the right and lower edges."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, out_channels, height / 2, width / 2)."""
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, stride=2)


class DoublingConv2d(Convolution):
    """A 3x3 convolution of pictures whose pixels are first doubled in both directions.

    Over doubled pixels the 9 weights fall on 4 different ones, in four ways: one for each place in a doubled pixel.
    ``prepare`` sums them, so that one 2x2 convolution of the small picture makes all four, 4/9 of the work and no
    large picture between.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 3))
        self._is_folded = False

    def prepare(self, *, single_frame: bool) -> None:
        """Sum the weights that meet on one pixel: to (4 * out_channels, in_channels, 2, 2)."""
        if self._is_folded:
            return
        exact = self.weight.detach().float()
        places = [column for row in _fold(exact, 2) for column in _fold(row, 3)]
        self._repack(torch.cat(places).to(self.weight.dtype))
        self.bias = nn.Parameter(self.bias.detach().repeat(4), requires_grad=False)
        self._is_folded = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, out_channels, 2 * height, 2 * width)."""
        if not self._is_folded:
            return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), self.weight, self.bias, padding=1)
        batch, _, height, width = x.shape
        # places: (batch, 4 * out_channels, height + 1, width + 1); those in upper rows are the first two
        places = F.conv2d(x, self.weight, self.bias, padding=1)
        channels = places.shape[1] // 4
        doubled = places.new_empty(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        for index, place in enumerate(places.chunk(4, dim=1)):
            row, column = divmod(index, 2)
            doubled[:, :, row::2, column::2] = place[:, :, row : row + height, column : column + width]
        return doubled


def _fold(weight: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pairs of weights that the first and the second half of a doubled pixel see along ``dim``."""
    before, here, after = weight.unbind(dim)
    return torch.stack((before, here + after), dim), torch.stack((before + here, after), dim)


class CausalConv3d(Convolution):
    """A convolution that sees a frame and the two before it; before the clip there are zeros.

    A clip's first frame alone meets only the last temporal slice of the weight: a 2-D convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__(in_channels, out_channels, kernel)

    def prepare(self, *, single_frame: bool) -> None:
        """As for all convolutions; for single frames only the last temporal slice is kept."""
        weight = self.weight[:, :, -1:] if single_frame else self.weight
        if _sums_pictures(weight):
            # One temporal slice after the other, each channels-last by itself.
            ordered = weight.detach().permute(2, 0, 3, 4, 1).contiguous()
            self.weight = nn.Parameter(ordered.permute(1, 4, 0, 2, 3), requires_grad=False)
        else:
            self._repack(weight)

    def forward(self, x: torch.Tensor, stream: ClipStream) -> torch.Tensor:
        """Return (batch, out_channels, frames, height, width) for the next chunk of a clip."""
        stream.check()
        past = stream.recall(self)
        if past is None and x.shape[2] == 1:
            if not stream.is_last:
                stream.keep(self, x)
            return over_time(x, self.weight[:, :, -1:], self.bias)
        seen = _after_past(past, x)
        if not stream.is_last:
            stream.keep(self, seen[:, :, -_NUM_PAST_FRAMES:].clone())
        del past  # it has been copied: while the convolution computes, that memory is free
        return over_time(seen, self.weight, self.bias)


def over_time(seen: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, step: int = 1) -> torch.Tensor:
    """Return the convolution of all frames, padded in space and not in time.

    On the CPU, in float32, it is the sum of one 2-D convolution per temporal slice of the weight: as fast as a 3-D one
    where channels are many, and several times as fast, with a fraction of the memory, where they are so few that
    torch computes a 3-D one by unfolding (measured: 1.0 for 384 and 96 channels, 4.7 for 48, 8.6 for 16).

    :param seen: (batch, channels, frames + kernel - 1, height, width).
    :param step: from one computed frame to the next.
    """
    side, num_slices = weight.shape[-1] // 2, weight.shape[2]
    if num_slices > 1 and (seen.shape[0] > 1 or not _sums_pictures(weight)):
        # Half precisions are summed inside the kernel, in float32.
        return F.conv3d(seen, weight, bias, stride=(step, 1, 1), padding=(0, side, side))
    end = seen.shape[2] - num_slices + 1
    pictures = [seen[:, :, first : end + first : step].transpose(1, 2) for first in range(num_slices)]
    batch, num_frames = pictures[0].shape[:2]
    result = F.conv2d(pictures[-1].flatten(0, 1), weight[:, :, -1], bias, padding=side)
    for picture, piece in zip(pictures[:-1], weight.unbind(2), strict=False):
        result.add_(F.conv2d(picture.flatten(0, 1), piece, None, padding=side))
    return result.view(batch, num_frames, *result.shape[1:]).transpose(1, 2)


def _sums_pictures(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def _after_past(past: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Return the chunk behind the two frames before it, or behind zeros where the clip began later."""
    num_known = 0 if past is None else past.shape[2]
    parts = [] if past is None else [past]
    if num_known < _NUM_PAST_FRAMES:
        batch, channels, _, height, width = x.shape
        # made as (batch, frames, height, width, channels), so that the joined clip is channels-last
        missing = x.new_zeros(batch, _NUM_PAST_FRAMES - num_known, height, width, channels)
        parts.insert(0, missing.permute(0, 4, 1, 2, 3))
    return torch.cat([*parts, x], dim=2)


class PointwiseConv3d(Convolution):
    """A convolution with a kernel of one pixel in one frame: nothing to remember."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, out_channels, frames, height, width)."""
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
