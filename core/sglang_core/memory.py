"""How much memory there is, and how much a request is expected to take beside the weights. Without torch."""

import ctypes
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .models import ComponentDescription, ModelDescription

_PRECISION_BYTES = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1}


def available_host_bytes(root: Path = Path("/")) -> int | None:
    """Return the host memory a new program can take, ``None`` where that can not be told.

    On Linux what the kernel calls available, or what the control group of this process has left if that is less; on
    macOS the free and inactive pages.

    :param root: where ``proc`` and ``sys`` lie.
    """
    if sys.platform == "darwin":
        return _darwin_available_bytes()
    known = [value for value in (_meminfo_available(root), _cgroup_available(root)) if value is not None]
    return min(known) if known else None


def _meminfo_available(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _cgroup_available(root: Path) -> int | None:
    """Return the least that this process's control group and those above it have left; version 2 first, then 1."""
    groups = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    left = []
    for _, controllers, path in groups:
        if controllers == "":
            mount, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, usage = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            remaining = _group_remaining(mount.joinpath(*parts[:depth]), limit, usage)
            left.extend([] if remaining is None else [remaining])
    return min(left, default=None)


def _group_remaining(group: Path, limit_file: str, usage_file: str) -> int | None:
    limit, usage = _read(group / limit_file).strip(), _read(group / usage_file).strip()
    if not limit.isdigit() or not usage.isdigit():  # "max", or not a group
        return None
    inactive = 0  # cached file pages count as used, but are given back first
    for line in _read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            inactive = max(inactive, int(value))
    return max(int(limit) - max(int(usage) - inactive, 0), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _darwin_available_bytes() -> int | None:
    try:
        report = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=1, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = report.splitlines()
    page_bytes = next((int(word) for word in lines[0].split() if word.isdigit()), 4096) if lines else 4096
    pages = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name in ("Pages free", "Pages inactive", "Pages speculative"):
            pages += int(value.strip(" ."))
    return pages * page_bytes if pages else None


def free_device_bytes(device: str) -> int | None:
    """Return the free memory of ``cpu``, ``mps`` (shared with the host), ``cuda`` or ``cuda:N``; ``None`` if unknown.

    CUDA devices are asked through NVML, which takes milliseconds and no context on the device.
    """
    kind, _, index = device.partition(":")
    if kind in ("cpu", "mps"):
        return available_host_bytes()
    if kind == "cuda":
        return _nvml_free_bytes(int(index) if index.isdigit() else 0)
    return None


class _NvmlMemory(ctypes.Structure):
    """``nvmlMemory_t`` of nvml.h, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _nvml_free_bytes(index: int) -> int | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        handle, memory = ctypes.c_void_p(), _NvmlMemory()
        # CUDA numbers the visible devices only, by number or by UUID; NVML numbers all
        visible = [item.strip() for item in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if item.strip()]
        name = visible[index] if index < len(visible) else str(index)
        if name.isdigit():
            found = nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        else:
            found = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if found != 0 or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
            return None
        return int(memory.free)
    finally:
        nvml.nvmlShutdown()


#: Bytes per output pixel, channel of the decoder's last stage and byte of precision, while a convolutional VAE decodes.
_DECODE_FACTOR = {4: 24, 2: 30}
#: A narrower last stage takes no less: convolutions pad their channels.
_NARROWEST_STAGE = 32
#: Frames that a causal video VAE decodes at once.
_FRAMES_AT_ONCE = 4
#: Copies of (tokens x width) alive in a block: residual, normed, q, k, v, output, 4-fold feed-forward twice.
_BLOCK_COPIES = 16
_TEXT_TOKENS = 1024


def estimate_activation_bytes(
    model: ModelDescription, width: int, height: int, num_frames: int, batch: int, precisions: Mapping[str, str]
) -> int:
    """Estimate the largest memory that a request takes beside the weights, in bytes; meant to err upwards.

    The stages follow one another, so it is the largest of two, plus the output:

    - denoise: ``16 x tokens x width x bytes`` of one transformer block, both guidance branches in turn, with
      ``tokens = latent pixels / patch area x latent frames + 1024`` text tokens. Attention is taken to need no
      tokens x tokens matrix, as in every fused kernel.
    - decode: ``factor x pixels x frames x channels x bytes``, with the channels of the decoder's last stage (at
      least 32), the frames decoded at once (at most 4) and factor 24 in fp32, 30 in 16 bits (upsampling is fp32).
    - output: the frames in fp32, twice.

    Measured peaks of AutoencoderKLQwenImage on a CPU (512 x 512 to 1024 x 1024, last stage of 12 to 32 channels) are
    0.92 to 0.99 of the decode term, and 0.47 of it for a stage of 16 channels; AutoencoderKLWan with 5 frames reached
    0.81. Other VAEs, and the denoise term, are not measured.

    :param batch: outputs made at once.
    :param precisions: precision by component name; a component that is left out counts in its stored one.
    """
    vae = _component_with_prefix(model, "vae")
    pixels = width * height
    denoise = 0
    for name, component in model.components.items():
        if name.startswith(("transformer", "unet")):
            config = component.config
            tokens = denoiser_tokens(model, name, width, height, num_frames) + _TEXT_TOKENS
            size = _bytes_per_value(name, component, precisions)
            denoise = max(denoise, int(_BLOCK_COPIES * tokens * _hidden_width(config) * size * batch))
    decode = 0
    if vae is not None:
        size = _bytes_per_value(vae.name, vae, precisions)
        factor = _DECODE_FACTOR.get(size, _DECODE_FACTOR[4])
        channels = max(_last_stage_channels(vae.config), _NARROWEST_STAGE)
        decode = factor * pixels * min(max(num_frames, 1), _FRAMES_AT_ONCE) * channels * size * batch
    output = 2 * 3 * 4 * pixels * max(num_frames, 1) * batch
    return max(denoise, decode) + output


def denoiser_tokens(model: ModelDescription, component: str, width: int, height: int, num_frames: int) -> int:
    """Return how many tokens a picture or clip is to a denoiser, as far as its configuration tells; text not counted.

    :param component: the denoiser, for example ``transformer``.
    """
    vae = _component_with_prefix(model, "vae")
    spatial, temporal = _compression(vae.config if vae else {})
    latent_frames = (max(num_frames, 1) - 1) // temporal + 1
    return int(width * height / spatial**2 / _patch_area(model.components[component].config) * latent_frames)


def _component_with_prefix(model: ModelDescription, prefix: str) -> ComponentDescription | None:
    names = sorted(name for name in model.components if name.startswith(prefix))
    return model.components[names[0]] if names else None


def _bytes_per_value(name: str, component: ComponentDescription, precisions: Mapping[str, str]) -> int:
    return _PRECISION_BYTES.get(precisions.get(name) or component.dtype or "fp32", 4)


def _whole(config: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of ``names`` that holds a positive whole number; configurations are foreign."""
    for name in names:
        value = config.get(name)
        if type(value) is int and value > 0:
            return value
    return None


def _whole_list(config: Mapping[str, Any], *names: str) -> list[int]:
    for name in names:
        value = config.get(name)
        if isinstance(value, list) and value and all(type(item) is int and item > 0 for item in value):
            return value
    return []


def _compression(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many pixels a side and how many frames become one latent."""
    spatial = _whole(config, "scale_factor_spatial", "spatial_compression_ratio")
    if spatial is None:
        stages = _whole_list(config, "dim_mult", "decoder_block_out_channels", "block_out_channels")
        spatial = 2 ** (len(stages) - 1) if stages else 8
    temporal = _whole(config, "scale_factor_temporal", "temporal_compression_ratio")
    if temporal is None:
        steps = config.get("temperal_downsample")  # the spelling of diffusers
        temporal = 2 ** sum(step is True for step in steps) if isinstance(steps, list) else 1
    return spatial, temporal


def _patch_area(config: Mapping[str, Any]) -> int:
    """Return the latent pixels of a token; packed models have one token for 2 x 2 of them."""
    patch = config.get("patch_size")
    if isinstance(patch, list):
        return math.prod(_whole_list(config, "patch_size")[-2:])
    side = _whole(config, "patch_size") or 1
    packed_channels = _whole(config, "in_channels") == 64 and side == 1  # Flux: packed before the transformer
    return 4 if packed_channels else side * side


def _hidden_width(config: Mapping[str, Any]) -> int:
    heads, head_dim = _whole(config, "num_attention_heads"), _whole(config, "attention_head_dim")
    if heads and head_dim:
        return heads * head_dim
    known = _whole(config, "hidden_size", "inner_dim", "dim", "cross_attention_dim")
    return known or max(_whole_list(config, "block_out_channels"), default=2048)


def _last_stage_channels(config: Mapping[str, Any]) -> int:
    """Return the channels of the decoder at full resolution."""
    base = _whole(config, "decoder_base_dim", "base_dim")
    if base is not None:
        return base * (_whole_list(config, "dim_mult") or [1])[0]
    return (_whole_list(config, "decoder_block_out_channels", "block_out_channels") or [128])[0]
