"""How many values the decoder holds at once while a clip goes through it, chunk by chunk. Without torch.

It follows ``Decoder.forward`` step by step, layer by layer: what a layer remembers of the chunks before is counted from
when it is kept to when it is used. So a clip of two chunks, whose first frame is all that is remembered and whose
second chunk keeps nothing, is counted as less than a long one.
"""

from .config import CausalVaeConfig, Level

#: Frames that a causal convolution remembers of a clip.
_NUM_PAST = 2
#: From this chunk on each takes what the one before it took: all layers remember two frames.
_STEADY_CHUNKS = 4


def decoder_values(
    config: CausalVaeConfig, *, num_chunks: int, rows: int, columns: int, result: int, is_half: bool
) -> int:
    """Return the most values there are at once while one clip is decoded, the result included.

    :param num_chunks: latent frames of the clip.
    :param rows: of the latents, and columns.
    :param result: values of the frames of all chunks, there from the end of the first chunk on.
    """
    return _Walk(config, num_chunks, result, is_half=is_half).peak(rows, columns)


class _Walk:
    def __init__(self, config: CausalVaeConfig, num_chunks: int, result: int, *, is_half: bool) -> None:
        self._config = config
        self._num_chunks = num_chunks
        self._result = result
        # Of the norm's input, itself included. In half precisions it may compute in float32: copies of twice the size.
        self._norm = 7 if is_half else 2
        self._divisors = 2 if is_half else 1  #: Of a pixel, in float32.
        self._narrowest = min(level.out_channels for level in config.decoder_levels)
        self._kept: dict[str, int] = {}  #: By layer, for the next chunk.
        self._held = 0  #: What is there during the whole of a chunk.
        self._peak = 0
        self._is_first = self._is_last = True

    def peak(self, rows: int, columns: int) -> int:
        made = 0
        # The last chunk alone keeps nothing; of those in the middle a few stand for all.
        chunks = min(self._num_chunks, _STEADY_CHUNKS)
        for index in range(chunks):
            self._is_first, self._is_last = index == 0, index == chunks - 1
            self._held = self._config.z_dim * rows * columns + made + (0 if self._is_first else self._result)
            made = self._decode(rows, columns)
            if self._is_first:
                self._note(made + self._result)
        return self._peak

    def _note(self, used: int) -> None:
        self._peak = max(self._peak, self._held + sum(self._kept.values()) + used)

    def _decode(self, rows: int, columns: int) -> int:
        """Take one chunk through the decoder; return the size of what it makes."""
        config, frames, pixels = self._config, 1, rows * columns
        levels = config.decoder_levels
        values = levels[0].in_channels * pixels
        self._convolve("conv_in", 0, config.z_dim * pixels, values, frames)
        self._block("mid 0", 0, values, values, frames)
        self._note(10 * values)  # attention, of one frame at the smallest size
        self._block("mid 1", values, values, values, frames)
        for place, level in enumerate(levels):
            given, values = values, level.out_channels * frames * pixels
            self._block(f"{place} 0", 0, given, values, frames)
            for block in range(1, config.num_res_blocks + 1):
                self._block(f"{place} {block}", given, values, values, frames)
            if level.resamples_space:
                doubles_time = level.resamples_time and not self._is_first
                values = self._resample(f"{place}", level, given, values, (frames, rows, columns), doubles_time)
                frames, rows, columns, pixels = frames * (1 + doubles_time), 2 * rows, 2 * columns, 4 * pixels
        made = config.out_channels * frames * pixels
        self._note(self._norm * values + self._sizes(values))
        self._convolve("conv_out", 2 * values, values, made, frames)
        return made

    def _block(self, name: str, held: int, given: int, made: int, frames: int) -> None:
        """Count a residual block; ``held`` is the input of its level, where that is another tensor than ``given``."""
        self._note(held + self._norm * given + self._sizes(given))
        self._convolve(f"{name} 1", held + 2 * given, given, made, frames)
        self._note(held + given + self._norm * made + self._sizes(made))
        self._convolve(f"{name} 2", held + given + made, made, made, frames)
        self._note(held + given + 2 * made)

    def _sizes(self, values: int) -> int:
        """Return the size of a norm's divisors: one for all channels of a pixel."""
        return self._divisors * values // self._narrowest

    def _convolve(self, layer: str, held: int, given: int, made: int, frames: int) -> None:
        """Count a causal convolution; ``held`` includes what it is given."""
        past = self._kept.pop(layer, None)
        if past is None and frames == 1:
            self._note(held + made)  # a single slice of its weight
            if not self._is_last:
                self._kept[layer] = given  # the input itself
            return
        frame = given // frames
        seen = given + _NUM_PAST * frame
        self._note(held + (past or 0) + seen + (0 if self._is_last else _NUM_PAST * frame))
        if not self._is_last:
            self._kept[layer] = _NUM_PAST * frame
        # While it computes there are two results: one slice of its weight after the other.
        self._note(held + seen + 2 * made)

    def _resample(
        self, name: str, level: Level, given: int, values: int, size: tuple[int, int, int], doubles_time: bool
    ) -> int:
        """Count the step to the next level; return the size of its result."""
        frames, rows, columns = size
        clip = values
        if doubles_time:
            clip = 2 * values
            self._convolve(name, given + values, values, clip, frames)
            self._note(given + values + 2 * clip)  # both halves of the channels, then in turn
        width = level.out_channels if self._config.is_residual else level.out_channels // 2
        num_frames = frames * (1 + doubles_time)
        # Each pixel's four places, with a border, and the same in their order.
        places = 4 * width * num_frames * (rows + 1) * (columns + 1)
        doubled = 4 * width * num_frames * rows * columns
        self._note(given + values + (clip if doubles_time else 0) + places + doubled)
        return doubled
