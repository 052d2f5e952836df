"""The same frames and latents as diffusers' classes, in every architecture, length and size."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_causal_vaes import ARCHITECTURES, Pair, component_of, random_vanilla, with_weights_of

from sglang_core import RequestError
from sglang_plugins_builtin.native.causal_vae.blocks import ChannelNorm
from sglang_plugins_builtin.native.causal_vae.config import CausalVaeConfig, Tiling
from sglang_plugins_builtin.native.causal_vae.latents import denormalise, normalise
from sglang_plugins_builtin.native.causal_vae.model import CausalVae

Pairs = Callable[[str], Pair]

#: Of float32, relative: sums are in another order (channels-last kernels, folded weights, frames as pictures), each
#: rounded at 6e-8, through some 40 layers. Measured: 1.3e-6 at most.
TOLERANCE = 1e-5

each_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
#: frames, batch, height and width in latents: among the sizes odd ones, multiples of 8 pixels but not of 16.
each_shape = pytest.mark.parametrize(
    ("num_frames", "batch", "height", "width"), [(1, 2, 3, 5), (5, 2, 3, 2), (9, 1, 2, 3), (17, 1, 1, 2)]
)


def difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    assert ours.shape == reference.shape
    return float((ours.double() - reference.double()).norm() / reference.double().norm())


def random_latents(model: CausalVae, num_frames: int, batch: int = 1, height: int = 2, width: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 4, model.config.num_latent_frames(num_frames), height, width, generator=generator)


def random_frames(model: CausalVae, num_frames: int, batch: int = 1, height: int = 2, width: int = 3) -> torch.Tensor:
    side = model.config.spatial_factor
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, 3, num_frames, height * side, width * side, generator=generator) * 2 - 1


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@each_architecture
@each_shape
def test_decoding_equals_diffusers(
    pairs: Pairs, name: str, num_frames: int, batch: int, height: int, width: int
) -> None:
    vanilla, ours = pairs(name)
    latents = random_latents(ours, num_frames, batch, height, width)

    frames = ours.decode(latents)

    assert frames.shape[2] == num_frames
    assert difference(frames, vanilla.decode(latents).sample) < TOLERANCE


@each_architecture
@each_shape
def test_encoding_equals_diffusers(
    pairs: Pairs, name: str, num_frames: int, batch: int, height: int, width: int
) -> None:
    vanilla, ours = pairs(name)
    frames = random_frames(ours, num_frames, batch, height, width)

    mean, log_variance = ours.encode_distribution(frames)

    reference = vanilla.encode(frames).latent_dist
    assert difference(mean, reference.mean) < TOLERANCE
    assert difference(log_variance, reference.logvar) < TOLERANCE
    assert torch.equal(ours.encode(frames), mean)


@each_architecture
def test_weights_need_no_preparation_to_give_the_same(pairs: Pairs, name: str) -> None:
    vanilla, prepared = pairs(name)
    plain = with_weights_of(vanilla, name)
    latents, frames = random_latents(prepared, 5), random_frames(prepared, 5)

    assert difference(plain.decode(latents), prepared.decode(latents)) < TOLERANCE
    assert difference(plain.encode(frames), prepared.encode(frames)) < TOLERANCE


@each_architecture
def test_weights_prepared_for_single_frames_give_the_same_picture_and_refuse_clips(pairs: Pairs, name: str) -> None:
    vanilla, ours = pairs(name)
    pictures = with_weights_of(vanilla, name)
    pictures.prepare(single_frame=True)
    latents, frames = random_latents(ours, 1), random_frames(ours, 1)

    assert difference(pictures.decode(latents), ours.decode(latents)) < TOLERANCE
    assert difference(pictures.encode(frames), ours.encode(frames)) < TOLERANCE
    assert _num_values(pictures) < 0.5 * _num_values(ours)
    with pytest.raises(ValueError, match="prepared for single frames"):
        pictures.decode(random_latents(ours, 5))


def _num_values(model: CausalVae) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@each_architecture
def test_the_first_frame_is_the_same_alone(pairs: Pairs, name: str) -> None:
    ours = pairs(name).ours
    latents = random_latents(ours, 9)

    assert difference(ours.decode(latents[:, :, :1]), ours.decode(latents)[:, :, :1]) < TOLERANCE


@each_architecture
def test_without_encoder_only_the_decoders_weights_are_asked_for(pairs: Pairs, name: str) -> None:
    vanilla, ours = pairs(name)
    decoder_only = with_weights_of(vanilla, name, with_encoder=False)
    latents = random_latents(ours, 5)

    assert decoder_only.rename("encoder.conv_in.weight") is None
    assert decoder_only.rename("quant_conv.bias") is None
    assert decoder_only.rename("decoder.conv_in.weight") == "decoder.conv_in.weight"
    assert difference(decoder_only.decode(latents), ours.decode(latents)) < TOLERANCE


@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("AutoencoderKLQwenImage", {}),
        ("AutoencoderKLWan", {}),
        (
            "AutoencoderKLWan",
            {
                "base_dim": 160,
                "decoder_base_dim": 256,
                "z_dim": 48,
                "is_residual": True,
                "in_channels": 12,
                "out_channels": 12,
                "patch_size": 2,
                "scale_factor_spatial": 16,
                "latents_mean": [0.0] * 48,
                "latents_std": [1.0] * 48,
            },
        ),
    ],
    ids=["qwen-image", "wan-2.1", "wan-2.2-5b"],
)
def test_names_and_shapes_of_the_published_models_are_those_of_diffusers(
    class_name: str, config: dict[str, object]
) -> None:
    with torch.device("meta"):
        vanilla = getattr(diffusers, class_name)(**config)
        ours = CausalVae(CausalVaeConfig.from_component(component_of(class_name, config)))

    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in vanilla.state_dict().items()}


#: Tiles in pixels; frames of 6x5 latents give three rows and two columns, the last ones cut short.
TILES = {
    8: Tiling(height=32, width=32, stride_height=16, stride_width=24),
    16: Tiling(height=64, width=64, stride_height=32, stride_width=48),
}


@contextmanager
def tiled(vanilla: Any, tiling: Tiling) -> Iterator[None]:
    vanilla.enable_tiling(tiling.height, tiling.width, tiling.stride_height, tiling.stride_width)
    yield
    vanilla.disable_tiling()


@each_architecture
def test_tiled_decoding_equals_that_of_diffusers(pairs: Pairs, name: str) -> None:
    vanilla, ours = pairs(name)
    tiling = TILES[ours.config.spatial_factor]
    latents = random_latents(ours, 5, 1, 6, 5)

    frames = ours.decode(latents, tiling=tiling)

    with tiled(vanilla, tiling):
        # Qwen-Image's class leaves tiled frames unclamped; whole ones, and both of ours, are clamped.
        assert difference(frames, vanilla.decode(latents).sample.clamp(-1, 1)) < TOLERANCE
    assert difference(frames, ours.decode(latents)) > 100 * TOLERANCE


@each_architecture
def test_tiled_encoding_equals_that_of_diffusers(pairs: Pairs, name: str) -> None:
    vanilla, ours = pairs(name)
    tiling = TILES[ours.config.spatial_factor]
    frames = random_frames(ours, 5, 1, 10, 6)

    mean = ours.encode(frames, tiling=tiling)

    with tiled(vanilla, tiling):
        assert difference(mean, vanilla.encode(frames).latent_dist.mean) < TOLERANCE
    assert difference(mean, ours.encode(frames)) > 100 * TOLERANCE


@each_architecture
def test_frames_no_larger_than_a_tile_are_coded_whole(pairs: Pairs, name: str) -> None:
    ours = pairs(name).ours
    latents = random_latents(ours, 5)

    assert torch.equal(ours.decode(latents, tiling=Tiling()), ours.decode(latents))


def test_a_batch_is_the_same_one_at_a_time(pairs: Pairs) -> None:
    ours = pairs("wan-2.1").ours
    latents, frames = random_latents(ours, 5, 3), random_frames(ours, 5, 3)

    assert difference(ours.decode(latents, slicing=True), ours.decode(latents)) < TOLERANCE
    assert difference(ours.encode(frames, slicing=True), ours.encode(frames)) < TOLERANCE


@each_architecture
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_no_further_from_float32_than_diffusers(pairs: Pairs, name: str, dtype: torch.dtype) -> None:
    exact = pairs(name).vanilla
    vanilla = copy.deepcopy(exact).to(dtype)
    ours = with_weights_of(exact, name, dtype=dtype)
    ours.prepare()
    # Enough values that the comparison of two rounding errors is not luck.
    latents, frames = random_latents(ours, 5, 4, 3, 4).to(dtype), random_frames(ours, 5, 4, 3, 4).to(dtype)

    decoded, encoded = ours.decode(latents), ours.encode(frames)

    assert decoded.dtype == encoded.dtype == dtype
    frames_exact, mean_exact = exact.decode(latents.float()).sample, exact.encode(frames.float()).latent_dist.mean
    vanilla_error = difference(vanilla.decode(latents).sample, frames_exact)
    assert difference(decoded, frames_exact) <= 1.1 * vanilla_error
    vanilla_error = difference(vanilla.encode(frames).latent_dist.mean, mean_exact)
    assert difference(encoded, mean_exact) <= 1.1 * vanilla_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_of_a_black_pixel_is_black(dtype: torch.dtype) -> None:
    norm = ChannelNorm(8)
    norm.load_state_dict({"gamma": torch.ones(8, 1, 1, 1, dtype=dtype)}, assign=True)
    pixels = torch.zeros(1, 8, 1, 2, 2, dtype=dtype)
    pixels[..., 0, 0] = 3.0

    normed = norm(pixels)

    expected = (pixels != 0).to(dtype)
    torch.testing.assert_close(normed, expected)


def test_normalised_latents_are_those_of_the_pipelines() -> None:
    config = CausalVaeConfig.from_component(component_of(*ARCHITECTURES["wan-2.1"]))
    latents = torch.full((1, 4, 1, 1, 1), 2.0)

    normalised = normalise(latents, config)

    expected = [(2.0 - mean) / std for mean, std in zip(config.latents_mean, config.latents_std, strict=True)]
    torch.testing.assert_close(normalised.flatten(), torch.tensor(expected))
    torch.testing.assert_close(denormalise(normalised, config), latents)


class StopHereError(Exception):
    """What a cancel raises in these tests."""


def test_progress_counts_latent_frames_of_all_tiles_and_samples(pairs: Pairs) -> None:
    ours = pairs("wan-2.1").ours
    seen: list[tuple[int, int]] = []
    tiling = Tiling(height=32, width=32, stride_height=16, stride_width=16)

    ours.decode(random_latents(ours, 5, 2, 2, 6), tiling=tiling, slicing=True, on_step=lambda *step: seen.append(step))

    # 3 tiles in a row, 2 latent frames, 2 samples
    assert seen == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize("coding", ["decode", "encode"])
def test_an_exception_of_the_hook_stops_after_the_chunk(pairs: Pairs, coding: str) -> None:
    ours = pairs("wan-2.1").ours
    seen: list[tuple[int, int]] = []
    x = random_latents(ours, 17) if coding == "decode" else random_frames(ours, 17)

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise StopHereError

    with pytest.raises(StopHereError):
        getattr(ours, coding)(x, on_step=stop)

    assert seen == [(1, 5), (2, 5)]


@pytest.mark.parametrize("coding", ["decode", "encode"])
def test_a_large_frame_can_be_stopped_before_each_convolution(pairs: Pairs, coding: str) -> None:
    ours = pairs("wan-2.1").ours
    calls = 0
    x = random_latents(ours, 1) if coding == "decode" else random_frames(ours, 1)

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise StopHereError

    with pytest.raises(StopHereError):
        getattr(ours, coding)(x, check=stop)

    assert calls == 7


@pytest.mark.parametrize(
    ("shape", "problem", "remedy"),
    [
        (
            (1, 3, 1, 24, 20),
            "frames of 20x24 pixels can not be encoded: both sides must be multiples of 8",
            "use 16x24",
        ),
        (
            (1, 3, 7, 16, 16),
            "a clip of 7 frames can not be encoded: one frame, then multiples of 4",
            "use 5 frames",
        ),
        (
            (1, 4, 1, 16, 16),
            "frames with 4 channels do not fit the autoencoder, which takes 3",
            "convert the picture or clip to RGB",
        ),
    ],
)
def test_frames_without_whole_latents_are_refused(
    pairs: Pairs, shape: tuple[int, ...], problem: str, remedy: str
) -> None:
    with pytest.raises(RequestError) as caught:
        pairs("wan-2.1").ours.encode(torch.zeros(shape))

    assert (caught.value.problem, caught.value.remedy) == (problem, remedy)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
@pytest.mark.parametrize("is_mapped", [True, False], ids=["mapped", "in memory"])
def test_weights_wait_for_their_first_use_where_they_take_no_memory(is_mapped: bool, tmp_path: Path) -> None:
    name = next(iter(ARCHITECTURES))
    vanilla = random_vanilla(name)
    ours = with_weights_of(vanilla, name)
    if is_mapped:
        save_file({key: value.contiguous() for key, value in ours.state_dict().items()}, tmp_path / "vae.safetensors")
        ours.load_state_dict(load_file(tmp_path / "vae.safetensors"), assign=True)

    ours.prepare(single_frame=True, at_first_use=True)

    # of three frames, or of the last alone
    assert ours.get_parameter("decoder.conv_in.weight").shape[2] == (3 if is_mapped else 1)
    latents = random_latents(ours, 1)
    assert difference(ours.decode(latents), vanilla.decode(latents).sample) < TOLERANCE
    assert ours.get_parameter("decoder.conv_in.weight").shape[2] == 1
