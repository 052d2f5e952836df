"""Writes a model with random weights: ``python -m sglang_example_family FOLDER``."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from .family import PIPELINE_CLASS, TRANSFORMER_CLASS

NUM_HEADS, HEAD_DIM, NUM_LAYERS = 2, 16, 2


def write_model(folder: Path) -> None:
    """Write the files that a pipeline folder consists of, about 100 kB."""
    width = NUM_HEADS * HEAD_DIM
    linears = {"tiles_in": (width, 3), "tiles_out": (3, width)}
    for index in range(NUM_LAYERS):
        sizes = {"to_qkv": 3, "to_out": 1, "to_text_q": 1, "to_text_kv": 2, "to_text_out": 1}
        linears |= {f"layers.{index}.{name}": (factor * width, width) for name, factor in sizes.items()}
    generator = torch.Generator().manual_seed(0)
    weights = {"letters": torch.randn(256, width, generator=generator)}
    for name, (rows, columns) in linears.items():
        weights[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) * columns**-0.5
        weights[f"{name}.bias"] = torch.zeros(rows)
    (folder / "transformer").mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    config = {"num_heads": NUM_HEADS, "head_dim": HEAD_DIM, "num_layers": NUM_LAYERS}
    (folder / "transformer" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    described = {"_class_name": PIPELINE_CLASS, "transformer": ["sglang_example_family", TRANSFORMER_CLASS]}
    (folder / "model_index.json").write_text(json.dumps(described), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m sglang_example_family FOLDER")
    write_model(Path(sys.argv[1]))
