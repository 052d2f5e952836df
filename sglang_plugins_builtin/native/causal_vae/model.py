"""The whole autoencoder: clips in chunks, in tiles, one at a time."""

from collections.abc import Callable

import torch
from torch import nn

from sglang_core import RequestError

from ..layers.mapped_pages import MappedFiles
from .coders import Decoder, Encoder
from .config import CausalVaeConfig, Tiling
from .convolutions import ClipStream, Convolution, PointwiseConv3d
from .latents import patchify, unpatchify
from .tiles import count_tiles, map_tiles

#: Told after each chunk of frames: how many are done, and how many there are. It may raise to stop.
OnStep = Callable[[int, int], None]
#: Bounds of the log-variance, as the checkpoints' classes clamp it.
_LOG_VARIANCE = (-30.0, 20.0)


class CausalVae(nn.Module):
    """The causal 3-D autoencoder of Qwen-Image and Wan, on weights that are assigned by name after construction.

    Frames are (batch, channels, frames, height, width) in [-1, 1], latents (batch, z_dim, latent frames, height / f,
    width / f), not normalised (see ``normalise``). A clip passes in chunks of one latent frame, so that memory does
    not grow with its length but for the result. Results equal those of diffusers' AutoencoderKLQwenImage and
    AutoencoderKLWan to rounding.

    :param with_encoder: ``False`` leaves the encoder and its weights out, for models that only make pictures.
    :param with_decoder: the same for the decoder.
    """

    def __init__(self, config: CausalVaeConfig, *, with_encoder: bool = True, with_decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if with_encoder else None
        self.quant_conv = PointwiseConv3d(2 * config.z_dim, 2 * config.z_dim) if with_encoder else None
        self.post_quant_conv = PointwiseConv3d(config.z_dim, config.z_dim) if with_decoder else None
        self.decoder = Decoder(config) if with_decoder else None

    def rename(self, stored: str) -> str | None:
        """Return the name of a stored weight here, ``None`` for those that are not needed."""
        is_encoders = stored.startswith(("encoder.", "quant_conv."))
        return stored if (self.encoder if is_encoders else self.decoder) is not None else None

    def prepare(self, *, single_frame: bool = False, at_first_use: bool = False) -> None:
        """Repack the assigned weights for speed, one after the other; call once, before the first use.

        Afterwards they are no longer shaped as in the checkpoint.

        :param single_frame: keep only what single pictures need, a third of the weights: clips are then refused.
        :param at_first_use: wait for it, or for ``settle``, where weights are mapped and take no memory until then.
            Whoever keeps the weights to bring them back later has to ``settle`` them before.
        """
        self._takes_clips = not single_frame
        self._is_waiting = True
        if not at_first_use or not self._is_mapped():
            self.settle()

    def _is_mapped(self) -> bool:
        files = MappedFiles()
        return all(files.hold(module.weight) for module in self.modules() if isinstance(module, Convolution))

    def settle(self) -> None:
        """Do now what ``prepare`` left to the first use."""
        if not self._is_waiting:
            return
        self._is_waiting = False
        files = MappedFiles()
        for module in self.modules():
            if isinstance(module, Convolution):
                read = module.weight.data
                module.prepare(single_frame=not self._takes_clips)
                files.give_back(read)

    _takes_clips = True
    _is_waiting = False

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the weights, in which everything is computed."""
        return next(self.parameters()).dtype

    def decode(
        self,
        latents: torch.Tensor,
        *,
        tiling: Tiling | None = None,
        slicing: bool = False,
        on_step: OnStep | None = None,
        check: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """Return frames in [-1, 1] of denormalised latents, in the dtype of the weights.

        :param tiling: decode frames that are larger than a tile in tiles; sizes that do not fit are a ``ConfigError``.
        :param slicing: decode one clip of a batch after the other.
        :param on_step: told after each chunk of each tile; an exception stops the work.
        :param check: called before each convolution, for stopping within large frames.
        """
        self._refuse_clip(latents.shape[2])
        self.settle()
        factor, patch = self.config.spatial_factor, self.config.patch_size
        given = _tiles_of(self.config, tiling, latents.shape[3] * factor, latents.shape[4] * factor, unit=factor)
        samples = latents.to(self.dtype).chunk(latents.shape[0] if slicing else 1)
        num_chunks = latents.shape[2]
        steps = _Steps(on_step, check, len(samples) * num_chunks * _num_tiles(latents, given))

        def code(tile: torch.Tensor) -> torch.Tensor:
            return self._decode_tile(tile, steps)

        decoded = []
        for sample in samples:
            if given is None:
                patches = code(sample)
            else:
                patches = map_tiles(sample, code, given, _scaled(given, factor // patch, 1))
            decoded.append(unpatchify(patches.clamp_(-1, 1), patch))
        return decoded[0] if len(decoded) == 1 else torch.cat(decoded)

    def encode(
        self,
        frames: torch.Tensor,
        *,
        tiling: Tiling | None = None,
        slicing: bool = False,
        on_step: OnStep | None = None,
        check: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """Return the mean of the latents of frames; parameters as of ``decode``.

        :raises RequestError: for sizes or lengths of which no whole latents can be made.
        """
        return self.encode_distribution(frames, tiling=tiling, slicing=slicing, on_step=on_step, check=check)[0]

    def encode_distribution(
        self,
        frames: torch.Tensor,
        *,
        tiling: Tiling | None = None,
        slicing: bool = False,
        on_step: OnStep | None = None,
        check: Callable[[], None] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of the latents of frames; parameters and errors as of ``encode``."""
        self._refuse_uneven(frames)
        self.settle()
        patches = patchify(frames.to(self.dtype), self.config.patch_size)
        given = _tiles_of(self.config, tiling, frames.shape[3], frames.shape[4], unit=1)
        samples = patches.chunk(patches.shape[0] if slicing else 1)
        num_chunks = self.config.num_latent_frames(frames.shape[2])
        steps = _Steps(on_step, check, len(samples) * num_chunks * _num_tiles(patches, given))

        def code(tile: torch.Tensor) -> torch.Tensor:
            return self._encode_tile(tile, steps)

        factor = self.config.spatial_factor // self.config.patch_size
        encoded = [
            code(sample) if given is None else map_tiles(sample, code, given, _scaled(given, 1, factor))
            for sample in samples
        ]
        mean, log_variance = torch.cat(encoded).chunk(2, dim=1)
        return mean, log_variance.clamp(*_LOG_VARIANCE)

    def _decode_tile(self, latents: torch.Tensor, steps: "_Steps") -> torch.Tensor:
        """Return (batch, out_channels, frames, ...), the patches of one tile, latent frame by latent frame."""
        if self.decoder is None or self.post_quant_conv is None:
            raise ValueError("the decoder was left out (with_decoder=False)")
        batch, _, num_latent_frames, _, _ = latents.shape
        stream = ClipStream(num_latent_frames, steps.check)
        # One pixel at a time, so it can see all latent frames at once.
        latents = self.post_quant_conv(latents.contiguous(memory_format=torch.channels_last_3d))
        num_frames, factor = self.config.num_frames(num_latent_frames), self.config.temporal_factor
        patches: torch.Tensor | None = None
        for index in stream.chunks():
            chunk = self.decoder(_channels_last(latents[:, :, index : index + 1]), stream)
            if patches is None:
                patches = chunk.new_empty(batch, chunk.shape[1], num_frames, *chunk.shape[3:])
            start = 1 + (index - 1) * factor if index else 0
            patches[:, :, start : start + chunk.shape[2]] = chunk
            steps.advance()
        assert patches is not None
        return patches

    def _encode_tile(self, patches: torch.Tensor, steps: "_Steps") -> torch.Tensor:
        """Return (batch, 2 * z_dim, latent frames, ...) of one tile: the first frame, then factor by factor."""
        if self.encoder is None or self.quant_conv is None:
            raise ValueError("the encoder was left out (with_encoder=False)")
        factor = self.config.temporal_factor
        stream = ClipStream(self.config.num_latent_frames(patches.shape[2]), steps.check)
        moments = []
        for index in stream.chunks():
            start, end = (1 + (index - 1) * factor, 1 + index * factor) if index else (0, 1)
            moments.append(self.encoder(_channels_last(patches[:, :, start:end]), stream))
            steps.advance()
        result: torch.Tensor = self.quant_conv(torch.cat(moments, dim=2))
        return result.contiguous()

    def _refuse_clip(self, num_frames: int) -> None:
        if num_frames > 1 and not self._takes_clips:
            raise ValueError("the weights were prepared for single frames")

    def _refuse_uneven(self, frames: torch.Tensor) -> None:
        _, channels, num_frames, height, width = frames.shape
        self._refuse_clip(num_frames)
        if channels != self.config.frame_channels:
            raise RequestError(
                f"frames with {channels} channels do not fit the autoencoder, which takes {self.config.frame_channels}",
                "convert the picture or clip to RGB",
            )
        space, time = self.config.spatial_factor, self.config.temporal_factor
        if height % space or width % space:
            raise RequestError(
                f"frames of {width}x{height} pixels can not be encoded: both sides must be multiples of {space}",
                f"use {max(width // space, 1) * space}x{max(height // space, 1) * space}",
            )
        if (num_frames - 1) % time:
            raise RequestError(
                f"a clip of {num_frames} frames can not be encoded: one frame, then multiples of {time}",
                f"use {1 + (num_frames - 1) // time * time} frames",
            )


class _Steps:
    """Chunks that are done, over all tiles and samples."""

    def __init__(self, on_step: OnStep | None, check: Callable[[], None] | None, total: int) -> None:
        self._on_step = on_step
        self.check = check
        self._total = total
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        if self._on_step is not None:
            self._on_step(self._done, self._total)


#: Tile size and stride, for height and width.
_Tiles = tuple[tuple[int, int], tuple[int, int]]


def _tiles_of(config: CausalVaeConfig, tiling: Tiling | None, height: int, width: int, *, unit: int) -> _Tiles | None:
    """Return the tiles in units of so many pixels; ``None`` for frames that are no larger than one."""
    if tiling is None:
        return None
    tiling.check(config)
    if height <= tiling.height and width <= tiling.width:
        return None
    return (
        (tiling.height // unit, tiling.stride_height // unit),
        (tiling.width // unit, tiling.stride_width // unit),
    )


def _num_tiles(x: torch.Tensor, tiles: _Tiles | None) -> int:
    return 1 if tiles is None else count_tiles(x.shape[3], x.shape[4], tiles)


def _scaled(tiles: _Tiles, factor: int, divisor: int) -> _Tiles:
    (height, stride_height), (width, stride_width) = tiles
    return (
        (height * factor // divisor, stride_height * factor // divisor),
        (width * factor // divisor, stride_width * factor // divisor),
    )


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)
