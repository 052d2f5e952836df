"""How much memory the autoencoder takes, from descriptions and sizes alone, without torch."""

from sglang_core import ComponentDescription, loaded_bytes

from .config import CausalVaeConfig, Level, Tiling

_NUM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
#: Kernels that libraries generate on first use, and what an allocator can not give back.
_FIXED_BYTES = 6 * 2**20
#: Frames that a causal convolution remembers of a clip.
_NUM_PAST = 2
#: The layers with a kernel of three frames.
_CAUSAL_LAYERS = ("conv_in", "conv_out", "conv1", "conv2", "time_conv")


def decode_bytes(
    config: CausalVaeConfig,
    *,
    num_frames: int,
    height: int,
    width: int,
    dtype: str,
    batch_size: int = 1,
    tiling: Tiling | None = None,
    slicing: bool = False,
) -> int:
    """Return an upper estimate of what ``CausalVae.decode`` allocates beside the weights, its result included.

    Encoding frames of the same size takes less. Libraries' scratch memory is counted as one copy of the largest
    weight, which is what CPU convolutions take, and a few megabytes whatever the size.

    :param num_frames: of the decoded clip; height and width in pixels.
    :param dtype: ``fp32``, ``fp16`` or ``bf16``.
    """
    at_once = 1 if slicing else batch_size
    num_latent_frames = config.num_latent_frames(num_frames)
    rows, columns = -(-height // config.spatial_factor), -(-width // config.spatial_factor)
    result = config.out_channels * num_frames * height * width // config.patch_size**2
    values = 0
    if tiling is not None and (height > tiling.height or width > tiling.width):
        # A tile's own result, and the lower edges of two rows of tiles.
        edge = result * 2 * (tiling.height - tiling.stride_height) // height
        rows = min(rows, tiling.height // config.spatial_factor)
        columns = min(columns, tiling.width // config.spatial_factor)
        side = config.spatial_factor // config.patch_size
        values += at_once * (edge + 2 * config.out_channels * num_frames * rows * columns * side**2)
    num_copies = 1 + (config.patch_size > 1) + (at_once < batch_size)
    results = num_copies * batch_size * result
    latents = at_once * 2 * config.z_dim * num_latent_frames * rows * columns
    is_clip = num_latent_frames > 1
    walk = at_once * _Walk(config, is_clip, is_half=_NUM_BYTES[dtype] == 2).peak(rows * columns)
    # A single whole picture is its own result: there is none beside it on the way.
    is_alone = not values and not is_clip and at_once == batch_size
    values += latents + (max(walk, results) if is_alone else walk + results)
    return _NUM_BYTES[dtype] * (values + _largest_weight(config)) + _FIXED_BYTES


def rounding_bytes(config: CausalVaeConfig, *, num_frames: int, height: int, width: int, dtype: str) -> int:
    """Return what rounding the decoded frames to levels takes, those frames included."""
    values = config.frame_channels * num_frames * height * width
    return values * (_NUM_BYTES[dtype] + 4 + 1)  # the result, one copy in float32, and the levels


def weights_bytes(
    component: ComponentDescription, precision: str | None, *, has_encoder: bool, is_single_frame: bool
) -> int:
    """Return the size of the weights after ``CausalVae.prepare``.

    :param is_single_frame: whether only what single pictures need is kept.
    """
    decoders = loaded_bytes(component, precision, keeps=lambda name: not _is_encoders(name))
    total = decoders + (loaded_bytes(component, precision, keeps=_is_encoders) if has_encoder else 0)
    # Folded for doubled pixels, 9 values become 16, and a bias 4.
    folded = loaded_bytes(component, precision, keeps=lambda name: _is_doubling(name) and name.endswith("weight"))
    biases = loaded_bytes(component, precision, keeps=lambda name: _is_doubling(name) and name.endswith("bias"))
    total += folded * 7 // 9 + 3 * biases
    if is_single_frame:
        causal = loaded_bytes(
            component, precision, keeps=lambda name: _is_causal(name) and (has_encoder or not _is_encoders(name))
        )
        total -= causal * 2 // 3
    return total


def _is_encoders(name: str) -> bool:
    return name.startswith(("encoder.", "quant_conv."))


def _is_doubling(name: str) -> bool:
    return name.startswith("decoder.") and ".resample.1." in name


def _is_causal(name: str) -> bool:
    return name.endswith(tuple(f"{layer}.weight" for layer in _CAUSAL_LAYERS))


def _largest_weight(config: CausalVaeConfig) -> int:
    return max(27 * level.out_channels * max(level.in_channels, level.out_channels) for level in config.decoder_levels)


class _Walk:
    """One chunk's way through the decoder, counting values: those kept for the next chunk and those in use."""

    def __init__(self, config: CausalVaeConfig, is_clip: bool, *, is_half: bool) -> None:
        self._config = config
        self._is_clip = is_clip
        # In half precisions the norm may compute in float32: copies of twice the size.
        self._norm = 7 if is_half else 2

    def peak(self, pixels: int) -> int:
        """Return the largest number of values there are at once.

        :param pixels: of the latents, height times width.
        """
        levels = self._config.decoder_levels
        num_past = _NUM_PAST if self._is_clip else 0
        frames = 1
        width = levels[0].in_channels
        kept = num_past * pixels * (self._config.z_dim + 4 * width)
        used = [10 * width * pixels, self._block(width * pixels, width * pixels, frames)]
        num_blocks = self._config.num_res_blocks + 1
        for level in levels:
            given, made = level.in_channels * frames * pixels, level.out_channels * frames * pixels
            used.append(self._block(given, made, frames))
            used.append(given + self._block(made, made, frames))
            kept += num_past * pixels * (level.in_channels + (2 * num_blocks - 1) * level.out_channels)
            if not level.resamples_space:
                continue
            doubles_time = level.resamples_time and self._is_clip
            if doubles_time:
                kept += num_past * pixels * level.out_channels
            used.append(given + self._resampling(level, made, frames, doubles_time=doubles_time))
            frames *= 2 if doubles_time else 1
            pixels *= 4
        last = levels[-1].out_channels
        kept += num_past * pixels * last
        picture, made = last * frames * pixels, self._config.out_channels * frames * pixels
        used.append(picture + max(self._norm * picture, picture + self._seen(picture, frames) + made))
        # The last chunk of a clip is still there when the next is on its way.
        return kept + max(used) + frames * pixels + (made if self._is_clip else 0)

    def _seen(self, values: int, frames: int) -> int:
        """Return the size of a chunk joined with its past."""
        return values * (frames + _NUM_PAST) // frames if self._is_clip else 0

    def _block(self, given: int, made: int, frames: int) -> int:
        # While a convolution over time computes there are two results: one slice of its weight after the other.
        summed = 2 * made if self._is_clip else made
        first = 2 * given + self._seen(given, frames) + summed
        second = given + made + self._seen(made, frames) + summed
        return max(self._norm * given, given + self._norm * made, first, second)

    def _resampling(self, level: Level, made: int, frames: int, *, doubles_time: bool) -> int:
        clip = 2 * made if doubles_time else made
        doubled = 4 * clip if self._config.is_residual else 2 * clip
        over_time = made + self._seen(made, frames) + 2 * clip if doubles_time else 0
        return max(over_time, made + clip + 2 * doubled + doubled // 8)
