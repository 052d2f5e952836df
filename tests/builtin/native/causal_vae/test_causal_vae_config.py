"""What a configuration may say, and what needs no torch."""

import subprocess
import sys
from typing import Any

import pytest
from tiny_causal_vaes import SMALL, component_of

from sglang_core import ConfigError, ModelLoadError
from sglang_plugins_builtin.native.causal_vae.config import CausalVaeConfig, Tiling


def read(class_name: str, **values: Any) -> CausalVaeConfig:
    return CausalVaeConfig.from_component(component_of(class_name, {**SMALL, **values}))


def test_config_and_memory_need_no_torch_and_the_model_neither_dynamo_nor_diffusers() -> None:
    probe = (
        "import sys; from sglang_core import ComponentDescription as C\n"
        "import sglang_plugins_builtin.native.causal_vae.memory as m\n"
        "print('torch' in sys.modules)\n"
        "from sglang_plugins_builtin.native.causal_vae.model import CausalVae\n"
        "c = C(name='vae', library='diffusers', class_name='AutoencoderKLWan', config={'base_dim': 8})\n"
        "CausalVae(m.CausalVaeConfig.from_component(c)).prepare()\n"
        "print({'torch._dynamo', 'diffusers', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert done.stdout.split("\n")[:2] == ["False", "set()"]


def test_an_empty_configuration_is_that_of_wan_2_1() -> None:
    config = CausalVaeConfig.from_component(component_of("AutoencoderKLWan", {}))

    assert (config.base_dim, config.decoder_base_dim, config.z_dim, config.dim_mult) == (96, 96, 16, (1, 2, 4, 4))
    assert (config.spatial_factor, config.temporal_factor, config.frame_channels) == (8, 4, 3)
    assert (config.latents_mean[0], config.latents_std[15]) == (-0.7571, 1.9160)
    assert (config.num_latent_frames(81), config.num_frames(21)) == (21, 81)


def test_patches_count_as_pixels_of_the_frame() -> None:
    config = read("AutoencoderKLWan", patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)

    assert (config.spatial_factor, config.frame_channels) == (16, 3)


@pytest.mark.parametrize(
    ("class_name", "values", "trouble"),
    [
        ("AutoencoderKLQwenImage", {"is_residual": True}, "has the key 'is_residual', which its class does not have"),
        ("AutoencoderKLWan", {"input_channels": 3}, "has the key 'input_channels', which its class does not have"),
        ("AutoencoderKLWan", {"base_dim": 0}, "has base_dim 0, not a whole number above 0"),
        ("AutoencoderKLWan", {"z_dim": True}, "has z_dim True, not a whole number above 0"),
        ("AutoencoderKLWan", {"dim_mult": "1,2"}, "has dim_mult '1,2', not a list of whole numbers above 0"),
        ("AutoencoderKLWan", {"dim_mult": [1, 2]}, "has 3 values of temperal_downsample for the 1 steps between"),
        ("AutoencoderKLWan", {"temperal_downsample": [0, 1, 1]}, "not a list of true and false"),
        ("AutoencoderKLWan", {"is_residual": "yes"}, "has is_residual 'yes', neither true nor false"),
        ("AutoencoderKLWan", {"attn_scales": [0.5]}, "has attn_scales [0.5]; only none is supported"),
        ("AutoencoderKLWan", {"latents_mean": [0.0]}, "has 1 values of latents_mean for z_dim 4"),
        ("AutoencoderKLWan", {"latents_std": [1, 1, 1, 0]}, "has 0.0 in latents_std, which is divided by"),
        ("AutoencoderKLWan", {"latents_std": [1, 1, 1, None]}, "not a list of numbers"),
        ("AutoencoderKLWan", {"patch_size": 2}, "has in_channels 3, not a multiple of patch_size squared"),
        ("AutoencoderKLWan", {"scale_factor_spatial": 16}, "has scale_factor_spatial 16, but its levels make 8"),
        (
            "AutoencoderKLWan",
            {"is_residual": True, "dim_mult": [1, 5, 3, 4]},
            "has a level of the encoder from 8 to 40 channels, around which no shortcut fits",
        ),
    ],
)
def test_a_value_that_can_not_be_is_named(class_name: str, values: dict[str, Any], trouble: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        read(class_name, **values)

    assert caught.value.problem.startswith(f"the configuration of vae ({class_name}) has")
    assert trouble in caught.value.problem
    assert caught.value.remedy == "use --backend diffusers, or another version of the model"


def test_another_class_is_refused_by_name() -> None:
    with pytest.raises(ModelLoadError) as caught:
        read("AutoencoderKL")

    assert caught.value.problem == ("vae is a AutoencoderKL, not one of AutoencoderKLQwenImage, AutoencoderKLWan")
    assert caught.value.remedy == "use --backend diffusers"


@pytest.mark.parametrize(
    ("tiling", "problem", "remedy"),
    [
        (Tiling(height=100), "the tile height of 100 pixels is not a multiple of the 8 pixels of a latent", "use 96"),
        (Tiling(stride_width=3), "the tile stride width of 3 pixels is not a multiple of the 8", "use 8"),
        (
            Tiling(width=64, stride_width=128),
            "tiles of width 64 with a stride of 128 pixels leave gaps",
            "use a stride of at most 64",
        ),
    ],
)
def test_tiles_that_cut_latents_or_leave_gaps_are_refused(tiling: Tiling, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiling.check(read("AutoencoderKLWan"))

    assert caught.value.problem.startswith(problem)
    assert caught.value.remedy == remedy
