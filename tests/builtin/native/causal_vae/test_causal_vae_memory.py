"""The estimate of memory against what a process really takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_meter import LiveTensors
from tiny_causal_vaes import component_of

from sglang_plugins_builtin.native.causal_vae.config import CausalVaeConfig, Tiling
from sglang_plugins_builtin.native.causal_vae.memory import decode_bytes
from sglang_plugins_builtin.native.causal_vae.model import CausalVae

CONFIG: dict[str, Any] = {"base_dim": 16, "num_res_blocks": 1}
RESIDUAL: dict[str, Any] = {
    **CONFIG, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16
}  # fmt: skip

#: Decodes once small, so that libraries are there, then once as asked; prints the growth of the process.
PROBE = """
import json, re, sys
from pathlib import Path
import torch
from sglang_core import ComponentDescription
from sglang_plugins_builtin.native.causal_vae.config import CausalVaeConfig, Tiling
from sglang_plugins_builtin.native.causal_vae.model import CausalVae

asked = json.loads(sys.argv[1])
torch.set_num_threads(1)
component = ComponentDescription(
    name="vae", library="diffusers", class_name="AutoencoderKLWan", config=asked["config"]
)
model = CausalVae(CausalVaeConfig.from_component(component), with_encoder=False).to(getattr(torch, asked["dtype"]))
for parameter in model.parameters():
    parameter.zero_()
model.prepare()
tiling = Tiling(**asked["tiling"]) if asked["tiling"] else None

def resident(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

with torch.inference_mode():
    model.decode(torch.zeros(1, 16, 2, 2, 2))
    latents = torch.zeros(asked["latents"])
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    frames = model.decode(latents, tiling=tiling)
print(resident("VmHWM") - before)
"""


def measured_bytes(config: dict[str, Any], latents: list[int], dtype: str, tiling: dict[str, int] | None) -> int:
    asked = json.dumps({"config": config, "latents": latents, "dtype": dtype, "tiling": tiling})
    # The allocator gives every larger block back at once, so that the process shows what is in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, asked], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
@pytest.mark.parametrize(
    ("config", "num_frames", "size", "dtype", "tiling"),
    [
        (CONFIG, 9, 160, ("fp32", "float32"), None),
        (CONFIG, 1, 320, ("fp32", "float32"), None),
        (CONFIG, 5, 192, ("bf16", "bfloat16"), None),
        (RESIDUAL, 5, 256, ("fp32", "float32"), None),
        (CONFIG, 5, 224, ("fp32", "float32"), {"height": 128, "width": 128, "stride_height": 96, "stride_width": 96}),
    ],
    ids=["clip", "picture", "bf16", "residual", "tiled"],
)
def test_decoding_takes_no_more_than_estimated_and_not_much_less(
    config: dict[str, Any], num_frames: int, size: int, dtype: tuple[str, str], tiling: dict[str, int] | None
) -> None:
    known = CausalVaeConfig.from_component(component_of("AutoencoderKLWan", config))
    side = size // known.spatial_factor
    latents = [1, 16, known.num_latent_frames(num_frames), side, side]

    estimate = decode_bytes(
        known,
        num_frames=num_frames,
        height=size,
        width=size,
        dtype=dtype[0],
        tiling=Tiling(**tiling) if tiling else None,
    )

    measured = measured_bytes(config, latents, dtype[1], tiling)
    assert 0.6 * estimate < measured <= estimate


#: The autoencoder of Wan 2.2 TI2V 5B; that of the others is what the class assumes.
WAN_5B: dict[str, Any] = {
    **RESIDUAL, "base_dim": 160, "decoder_base_dim": 256, "num_res_blocks": 2, "z_dim": 48,
    "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip


def live_bytes(config: CausalVaeConfig, latents: tuple[int, ...], dtype: torch.dtype, **choices: Any) -> int:
    """Return the most bytes of tensors that decoding takes: of tensors without values, so that any size is quick."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    meter = LiveTensors()
    with FakeTensorMode():
        torch.set_default_dtype(dtype)
        try:
            model = CausalVae(config, with_encoder=False)
            model.prepare()
            given = torch.zeros(latents)
        finally:
            torch.set_default_dtype(torch.float32)
        with torch.inference_mode(), meter:
            model.decode(given, **choices)
    return meter.peak


@pytest.mark.parametrize("num_frames", [1, 5, 9, 17])
@pytest.mark.parametrize(
    ("config", "dtype", "tiling"),
    [
        ({}, "float32", None),
        ({}, "bfloat16", None),
        ({"num_res_blocks": 1}, "float32", Tiling(height=512, width=896, stride_height=480, stride_width=832)),
        (WAN_5B, "float32", None),
    ],
    ids=["fp32", "bf16", "tiled", "residual"],
)
def test_tensors_of_few_frames_are_estimated(
    config: dict[str, Any], num_frames: int, dtype: str, tiling: Tiling | None
) -> None:
    known = CausalVaeConfig.from_component(component_of("AutoencoderKLWan", config))
    height, width = 960, 1664
    side = known.spatial_factor
    latents = (1, known.z_dim, known.num_latent_frames(num_frames), height // side, width // side)
    precision = {"float32": "fp32", "bfloat16": "bf16"}[dtype]

    estimate = decode_bytes(known, num_frames=num_frames, height=height, width=width, dtype=precision, tiling=tiling)

    measured = live_bytes(known, latents, getattr(torch, dtype), tiling=tiling)
    # Beside tensors the estimate counts what kernels take: a copy of the largest weight, and a few megabytes.
    assert measured <= estimate <= 1.1 * measured


def test_a_tiled_or_sliced_decode_is_estimated_smaller() -> None:
    config = CausalVaeConfig.from_component(component_of("AutoencoderKLWan", {}))
    whole = decode_bytes(config, num_frames=81, height=720, width=1280, dtype="bf16", batch_size=2)

    tiled = decode_bytes(config, num_frames=81, height=720, width=1280, dtype="bf16", batch_size=2, tiling=Tiling())
    sliced = decode_bytes(config, num_frames=81, height=720, width=1280, dtype="bf16", batch_size=2, slicing=True)

    assert tiled < sliced < whole


def test_memory_grows_with_the_length_only_by_the_frames_themselves() -> None:
    config = CausalVaeConfig.from_component(component_of("AutoencoderKLWan", {}))

    # From the fourth chunk on each takes what the one before it took.
    short, long = (decode_bytes(config, num_frames=n, height=480, width=832, dtype="fp32") for n in (17, 81))

    assert long - short < 1.1 * 4 * 3 * 64 * 480 * 832
