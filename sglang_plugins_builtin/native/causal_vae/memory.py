"""How much memory the autoencoder takes, from descriptions and sizes alone, without torch."""

from sglang_core import ComponentDescription, loaded_bytes

from .config import CausalVaeConfig, Tiling
from .decoder_walk import decoder_values

_NUM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
#: Kernels that libraries generate on first use, and what an allocator can not give back.
_FIXED_BYTES = 6 * 2**20
#: What a process takes for a byte of tensors: kernels work on copies of pieces, in half precision on more of them, and
#: allocators round up.
_PER_BYTE = {"fp32": 1.035, "fp16": 1.06, "bf16": 1.06}
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
    is_patched = config.patch_size > 1
    rows, columns = -(-height // config.spatial_factor), -(-width // config.spatial_factor)
    result = at_once * config.frame_channels * num_frames * height * width
    decoding = at_once * _sample_values(config, num_frames, rows, columns, tiling, is_half=_NUM_BYTES[dtype] == 2)
    # Then patches become pixels, and the samples that were decoded one after the other are joined.
    before = batch_size // at_once - 1
    decoded = max(decoding + before * result, (before + 1 + is_patched) * result)
    if before:
        decoded = max(decoded + is_patched * result, 2 * (before + 1) * result + is_patched * result)
    num_latent_frames = config.num_latent_frames(num_frames)
    latents = at_once * 2 * config.z_dim * num_latent_frames * rows * columns
    share = 1.0 if num_latent_frames == 1 else _PER_BYTE[dtype]  # measured: a picture takes no more than its tensors
    values = int(share * (decoded + latents)) + _largest_weight(config, num_latent_frames)
    return _NUM_BYTES[dtype] * values + _FIXED_BYTES


def _sample_values(
    config: CausalVaeConfig, num_frames: int, rows: int, columns: int, tiling: Tiling | None, *, is_half: bool
) -> int:
    """Return the most values there are while one sample is decoded, whole or tile by tile, its result included."""
    num_chunks = config.num_latent_frames(num_frames)
    factor = config.spatial_factor

    def frames_of(height: int, width: int) -> int:
        return config.frame_channels * num_frames * height * width * factor**2

    def walk(height: int, width: int) -> int:
        result = frames_of(height, width)
        return decoder_values(config, num_chunks=num_chunks, rows=height, columns=width, result=result, is_half=is_half)

    if tiling is None or (rows * factor <= tiling.height and columns * factor <= tiling.width):
        return walk(rows, columns)
    tile_rows, tile_columns = min(rows, tiling.height // factor), min(columns, tiling.width // factor)
    stride = tiling.stride_width // factor
    lower = min(tile_rows, (tiling.height - tiling.stride_height) // factor)
    beside = max(tile_columns - stride, 0)
    widths = sum(min(tile_columns, columns - start) for start in range(0, columns, stride))
    # The tile before, its right edge, and the lower edges of two rows of tiles.
    others = frames_of(tile_rows, tile_columns) + frames_of(tile_rows, beside) + 2 * frames_of(lower, widths)
    return walk(tile_rows, tile_columns) + frames_of(rows, columns) + others


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


def _largest_weight(config: CausalVaeConfig, num_latent_frames: int) -> int:
    """Return the values of the largest weight that is used: of a single picture one slice in time."""
    kernel = 9 if num_latent_frames == 1 else 27
    # Folded for doubled pixels, 9 values become 16, and in half as many channels but where there are shortcuts.
    doubling = 16 if config.is_residual else 8
    return max(
        level.out_channels
        * max(kernel * level.in_channels, max(kernel, doubling * level.resamples_space) * level.out_channels)
        for level in config.decoder_levels
    )
