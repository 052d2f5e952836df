"""Adapters of Wan, in the names of its own code, against models whose weights were changed by hand."""

import shutil

import pytest
import torch
from lora_adapters import pair_shapes
from safetensors.torch import load_file, save_file

FLOAT32 = 1e-5
#: What training programs call layers, and what they are called in the model's files.
LAYERS = {
    "blocks.0.self_attn.q": "blocks.0.attn1.to_q",
    "blocks.1.self_attn.v": "blocks.1.attn1.to_v",
    "blocks.1.self_attn.o": "blocks.1.attn1.to_out.0",
    "blocks.0.cross_attn.k": "blocks.0.attn2.to_k",
    "blocks.1.ffn.0": "blocks.1.ffn.net.0.proj",
    "blocks.1.ffn.2": "blocks.1.ffn.net.2",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "head.head": "proj_out",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def adapted(wan_folders, tmp_path_factory):
    """Return an adapter for the model with two experts, and that model with the adapter in one of them, at 0.5."""
    folder = tmp_path_factory.mktemp("wan-lora")
    tiny = wan_folders("t2v-experts")
    merged = folder / "merged"
    shutil.copytree(tiny, merged)
    weights = load_file(tiny / "transformer_2" / WEIGHTS)
    shapes = {name: tuple(weights[f"{layer}.weight"].shape) for name, layer in LAYERS.items()}
    generator = torch.Generator().manual_seed(3)
    words = {"rank": 2, "down": "lora_down", "up": "lora_up", "prefix": "diffusion_model."}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in pair_shapes(shapes, **words).items()}
    for name, layer in LAYERS.items():
        up, down = (tensors[f"diffusion_model.{name}.lora_{matrix}.weight"] for matrix in ("up", "down"))
        tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(1.0)
        weights[f"{layer}.weight"] += 0.5 * (1.0 / 2) * (up @ down)
    save_file(tensors, folder / "high.safetensors")
    save_file(weights, merged / "transformer_2" / WEIGHTS)
    return folder / "high.safetensors", merged


def test_adapter_in_the_names_of_wan_changes_one_expert_as_by_hand(adapted, native, distance):
    adapter, merged = adapted
    model = native("t2v-experts")
    request = {"num_inference_steps": 4}
    plain = model.latents(**request).clone()
    settings = {"lora_path": str(adapter), "lora_nickname": "high"}

    latents = model.latents(**request, **settings, lora={"high@transformer_2": 0.5}).clone()
    both = model.latents(**request, **settings, lora={"high": 0.5}).clone()
    expected = type(model)(merged, "fp32", {}).latents(**request)

    assert distance(latents, expected) < FLOAT32
    assert distance(latents, plain) > 100 * FLOAT32
    assert distance(both, latents) > 100 * FLOAT32
    assert torch.equal(model.latents(**request), plain)


def test_both_backends_make_the_same_of_it(adapted, native, wan_folders):
    from sglang_core import Generator

    adapter, _ = adapted
    request = {"width": 32, "height": 32, "num_frames": 5, "num_inference_steps": 3, "guidance_scale": 4.0, "seed": 7}
    settings = {"lora_path": str(adapter), "lora_scale": 0.5}
    ours = native("t2v-experts").frames(**settings)

    with Generator.from_pretrained(
        str(wan_folders("t2v-experts")), backend="diffusers", precision="fp32", save_output=False, return_frames=True
    ) as generator:
        theirs = generator.generate("a red circle moves", **request, **settings).outputs[0].media.frames

    assert ours.shape == theirs.shape
    assert abs(ours.astype(int) - theirs.astype(int)).max() <= 1
