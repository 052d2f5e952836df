"""The plan's estimate of memory against what a run really takes, in tensors.

Measured is every tensor that is alive, weights included, where torch makes it: what a kernel takes for itself while it
computes is not seen. The estimate counts that too, some megabytes at any size, and keys for the longest prompt. So
sizes are such that the tensors of the picture are most, and the stage that takes the most is compared within 10 %.
"""

import json
from pathlib import Path

import pytest
import torch
from memory_meter import measured_stages
from safetensors.torch import save_file
from tiny_qwen_images import EMBEDDED, Native

from sglang_plugins_builtin.native.causal_vae.config import CausalVaeConfig
from sglang_plugins_builtin.native.causal_vae.model import CausalVae
from sglang_plugins_builtin.native.wan.text_encoder import UMT5Config, UMT5Encoder
from sglang_plugins_builtin.native.wan.transformer import WanTransformer
from sglang_plugins_builtin.native.wan.transformer_config import WanConfig

TEXT_ENCODER = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": 8}
TRANSFORMER = {"num_attention_heads": 4, "attention_head_dim": 48, "ffn_dim": 512, "num_layers": 1, "in_channels": 4}
TRANSFORMER |= {"out_channels": 4, "text_dim": 16, "freq_dim": 32}
VAE = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
VAE |= {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}


def save(folder: Path, module: torch.nn.Module, config: dict[str, object]) -> None:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in module.named_parameters()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan with random weights whose transformer is wide for its autoencoder."""
    from tokenizers import Tokenizer, models, processors

    folder = tmp_path_factory.mktemp("wan") / "wan"
    folder.mkdir()
    attention = object()
    save(folder / "transformer", WanTransformer(WanConfig(**TRANSFORMER), attention, attention), TRANSFORMER)
    save(folder / "text_encoder", UMT5Encoder(UMT5Config(**TEXT_ENCODER), attention), TEXT_ENCODER)
    described = {"name": "vae", "library": "diffusers", "class_name": "AutoencoderKLWan", "config": VAE}
    save(folder / "vae", CausalVae(CausalVaeConfig.from_component(_component(described))), VAE)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("x", -1.0)]
    (folder / "tokenizer").mkdir()
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "scheduler").mkdir()
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(flow))
    classes = {
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **classes}))
    return folder


def _component(described):
    from sglang_core import ComponentDescription

    return ComponentDescription(**described)


def compare(native: Native, until: str = "decode", **request: object) -> dict[str, tuple[int, int]]:
    """Return for each stage the measured and the estimated peak; the first is never more."""
    plan = native.planned(num_inference_steps=1, **request).plan
    estimates = plan.memory.stage_peak_bytes
    native.pipeline.components["vae"].settle()  # else mapped weights, which take no memory, are counted
    measured = measured_stages(native.pipeline, plan.requests[0], until=until)
    both = {name: (peak, estimates[name]) for name, peak in measured.items() if name in estimates}

    assert plan.memory.device_peak_bytes == max(estimates.values())
    assert {"encode", "denoise"} <= both.keys()
    for name, (peak, estimate) in both.items():
        assert peak <= estimate, name
    return both


@pytest.mark.parametrize(
    ("precision", "size"),
    [("fp32", (512, 384)), ("bf16", (512, 512)), ("fp32", (528, 512))],
    ids=["fp32", "bf16", "too large for both halves of guidance at once"],
)
def test_picture_of_the_embedded_model_takes_what_is_estimated(precision: str, size: tuple[int, int]) -> None:
    native = Native(EMBEDDED, precision=precision)

    both = compare(native, width=size[0], height=size[1], guidance_scale=4.0, negative_prompt="a circle")

    assert max(both.values()) == both["decode"]
    for stage in ("denoise", "decode"):
        measured, estimate = both[stage]
        assert estimate <= 1.1 * measured


LARGE, JOINED = (768, 640), (368, 352)  #: 3840 tokens, and 1012, of which both halves of guidance are one batch


@pytest.mark.parametrize(
    ("precision", "guidance", "size"),
    [("fp32", 1.0, LARGE), ("fp32", 5.0, LARGE), ("bf16", 5.0, LARGE), ("fp32", 5.0, JOINED), ("bf16", 5.0, JOINED)],
)
def test_steps_of_wan_take_what_is_estimated(
    wan_folder: Path, precision: str, guidance: float, size: tuple[int, int]
) -> None:
    native = Native(wan_folder, precision=precision)

    both = compare(native, "denoise", width=size[0], height=size[1], num_frames=5, guidance_scale=guidance)

    measured, estimate = both["denoise"]
    assert estimate <= 1.1 * measured


def test_clip_of_wan_takes_what_is_estimated(wan_folder: Path) -> None:
    native = Native(wan_folder)

    # Long enough that a chunk of frames goes through the decoder between two others.
    both = compare(native, width=320, height=288, num_frames=13, guidance_scale=1.0)

    measured, estimate = max(both.values())
    assert (measured, estimate) == both["decode"]
    assert estimate <= 1.1 * measured
