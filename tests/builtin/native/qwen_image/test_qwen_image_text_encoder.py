"""The text encoder against that of transformers: random weights with grouped heads, trained weights, padding."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sglang_core import ModelLoadError
from sglang_plugins_builtin.native.qwen_image.text_encoder import (
    Qwen2TextEncoder,
    TextEncoderConfig,
    rename_text_weight,
)

TEXT = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}
VISION = {"depth": 1, "hidden_size": 16, "num_heads": 1, "intermediate_size": 16, "out_hidden_size": 64}
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [7], [31, 41, 5, 9]]


def vanilla_encoder(seed: int = 0):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def ours_of(vanilla, attention, *, prepared: bool = True) -> Qwen2TextEncoder:
    model = Qwen2TextEncoder(TextEncoderConfig.from_json(vanilla.config.to_dict()), attention)
    renamed = {rename_text_weight(name): weight for name, weight in vanilla.state_dict().items()}
    renamed.pop(None)
    model.load_state_dict(renamed, assign=True)
    if prepared:
        model.prepare()
    return model


def run_vanilla(vanilla, prompt):
    ids = torch.tensor([prompt])
    return vanilla(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states[-1][0]


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("prepared", [False, True], ids=["as loaded", "prepared"])
@pytest.mark.parametrize("prompt", [*PROMPTS, [index % 50 for index in range(100)]], ids=len)
def test_last_hidden_states_equal_those_of_transformers(attention, prompt, prepared) -> None:
    vanilla = vanilla_encoder()

    (found,) = ours_of(vanilla, attention, prepared=prepared).encode([prompt])

    assert distance(found, run_vanilla(vanilla, prompt)) < 1e-5


def test_prompts_of_different_lengths_in_one_pass_equal_each_alone(attention) -> None:
    vanilla = vanilla_encoder()

    found = ours_of(vanilla, attention).encode(PROMPTS)

    assert [len(states) for states in found] == [9, 1, 4]
    assert all(
        distance(states, run_vanilla(vanilla, prompt)) < 1e-5 for states, prompt in zip(found, PROMPTS, strict=True)
    )


def test_in_bfloat16_it_is_as_near_to_float32_as_transformers(attention) -> None:
    wanted = run_vanilla(vanilla_encoder(), PROMPTS[0])
    rounded = vanilla_encoder().to(torch.bfloat16)

    (found,) = ours_of(rounded, attention).encode(PROMPTS[:1])

    assert found.dtype == torch.bfloat16
    assert distance(found, wanted) <= 1.1 * distance(run_vanilla(rounded, PROMPTS[0]), wanted)


def test_trained_weights_give_what_they_give_in_transformers(attention, embedded_model) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration

    folder = embedded_model / "text_encoder"
    vanilla = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    config = TextEncoderConfig.from_json(json.loads((folder / "config.json").read_text()))
    ours = Qwen2TextEncoder(config, attention)
    stored = load_file(folder / "model.safetensors")
    renamed = {rename_text_weight(name): weight.float() for name, weight in stored.items()}
    renamed.pop(None)
    ours.load_state_dict(renamed, assign=True)
    ours.prepare()
    prompt = [746, *range(100, 140), 747]

    (found,) = ours.encode([prompt])

    assert distance(found, run_vanilla(vanilla, prompt)) < 1e-5


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("language_model.model.norm.weight", "norm.weight"),
        ("model.embed_tokens.weight", "embed_tokens.weight"),
        ("visual.blocks.0.norm1.weight", None),
        ("model.visual.merger.ln_q.weight", None),
        ("lm_head.weight", None),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("something.else", "something.else"),
    ],
)
def test_stored_name_of_any_release_leads_to_the_layer(stored, name) -> None:
    assert rename_text_weight(stored) == name


def test_older_configuration_has_the_language_model_at_the_top() -> None:
    flat = {name: value for name, value in TEXT.items() if name != "rope_parameters"}
    flat |= {"rope_theta": 5e5, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}

    config = TextEncoderConfig.from_json(flat)

    assert config.rope_theta == 5e5
    assert config.num_key_value_heads == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu', the family qwen-image has 'silu' only"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn', the family qwen-image has 'default' only"),
        ({"use_sliding_window": True}, "use_sliding_window is True, the family qwen-image has False only"),
    ],
    ids=["activation", "rope", "sliding window"],
)
def test_part_that_it_does_not_have_is_refused_by_name(change, problem) -> None:
    with pytest.raises(ModelLoadError) as refused:
        TextEncoderConfig.from_json({"text_config": {**TEXT, **change}})

    assert refused.value.problem == f"text_encoder/config.json: {problem}"
    assert refused.value.remedy == "use --backend diffusers"


def test_missing_size_is_named() -> None:
    with pytest.raises(ModelLoadError, match=r"text_encoder/config\.json has no vocab_size"):
        TextEncoderConfig.from_json({name: value for name, value in TEXT.items() if name != "vocab_size"})
