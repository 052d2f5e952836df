"""Adapters for tests: of random numbers, in the formats of the programs that train them."""

import json
import math
import struct
from functools import cache
from pathlib import Path
from typing import Any

from sglang_core import (
    ComponentDescription,
    FolderSource,
    ModelDescription,
    WeightFile,
    describe_model,
    read_weight_file,
)
from sglang_core.safetensors_header import DTYPE_BYTES
from sglang_plugins_builtin.demo_models.resolver import WEIGHTS_FOLDER

DEMO = "demo/shapes-image"
DEMO_FOLDER = WEIGHTS_FOLDER / "shapes-image"
DEMO_WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@cache
def demo_model() -> ModelDescription:
    """Return the description of the embedded image model."""
    return describe_model(FolderSource(DEMO, "demo", DEMO_FOLDER))


def demo_layers(*endings: str) -> dict[str, tuple[int, ...]]:
    """Return shapes of the linear layers of its transformer by name, of those with one of the endings if any."""
    source = FolderSource(DEMO, "demo", DEMO_FOLDER)
    shapes = read_weight_file(source, DEMO_WEIGHTS, source.files()[DEMO_WEIGHTS]).shapes_by_name
    layers = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    return {
        name: shape
        for name, shape in layers.items()
        if len(shape) == 2 and (not endings or name.endswith(tuple(endings)))
    }


def described(components: dict[str, tuple[str, dict[str, tuple[int, ...]]]]) -> ModelDescription:
    """Return a model of components, each a class name and the shapes of its layers."""
    return ModelDescription(
        reference="some/model",
        resolver="test",
        revision=None,
        pipeline_class="SomePipeline",
        components={
            name: ComponentDescription(
                name=name,
                library="diffusers",
                class_name=class_name,
                weights=(
                    WeightFile(
                        path=f"{name}/weights.safetensors",
                        num_bytes=0,
                        shapes_by_name={f"{layer}.weight": shape for layer, shape in layers.items()},
                    ),
                ),
            )
            for name, (class_name, layers) in components.items()
        },
    )


def write_header(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", **metadata: str) -> Path:
    """Write a safetensors file of zeros without any library."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + DTYPE_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
    return path


def pair_shapes(
    layers: dict[str, tuple[int, ...]], rank: int = 4, down: str = "lora_A", up: str = "lora_B", prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the two matrices of each layer by the names that a program gives them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (out, into) in layers.items():
        shapes[f"{prefix}{layer}.{down}.weight"] = (rank, into)
        shapes[f"{prefix}{layer}.{up}.weight"] = (out, rank)
    return shapes


def write_adapter(
    path: Path,
    layers: dict[str, tuple[int, ...]],
    *,
    rank: int = 4,
    seed: int = 0,
    size: float = 0.1,
    alpha: float | None = None,
) -> Path:
    """Write an adapter of random matrices for layers of the embedded image model, as diffusers does."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: size * torch.randn(shape, generator=generator)
        for name, shape in pair_shapes(layers, rank, prefix="transformer.").items()
    }
    if alpha is not None:
        tensors |= {f"transformer.{layer}.alpha": torch.tensor(alpha) for layer in layers}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
