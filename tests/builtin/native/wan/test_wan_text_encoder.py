import json

import pytest
import torch
from transformers import UMT5Config as VanillaConfig
from transformers import UMT5EncoderModel

from sglang_plugins_builtin.native.wan.text_encoder import (
    FLOAT32_PARTS_OF_FLOAT16,
    UMT5Encoder,
    padded,
    stored_name,
)
from sglang_plugins_builtin.native.wan.text_encoder_config import UMT5Config

SIZES = {"vocab_size": 60, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3}


@pytest.fixture
def reference():
    torch.manual_seed(2)
    config = VanillaConfig(**SIZES, relative_attention_num_buckets=16, relative_attention_max_distance=40)
    model = UMT5EncoderModel(config).eval().requires_grad_(False)
    for name, value in model.named_parameters():
        if name.endswith(("relative_attention_bias.weight", "layer_norm.weight")):
            value.add_(0.3 * torch.randn_like(value))
    return model


def native(model, attention):
    encoder = UMT5Encoder(UMT5Config.read(json.loads(model.config.to_json_string()), "config.json"), attention)
    weights = {stored_name(name): value for name, value in model.state_dict().items()}
    encoder.load_state_dict(weights, assign=True)
    return encoder


def ids_of(length, batch=1):
    return torch.randint(2, 60, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", [1, 2, 9, 40, 130])
def test_a_prompt_at_its_length_equals_the_padded_one(length, reference, attention, distance):
    ids = ids_of(length)
    filled = torch.nn.functional.pad(ids, (0, 160 - length))
    expected = reference(filled, filled.gt(0).long()).last_hidden_state[:, :length]

    result = native(reference, attention)(ids)

    assert result.shape == (1, length, 24)
    assert distance(result, expected) < 1e-5  # float32, sums in another order


def test_several_prompts_are_encoded_as_one_by_one(reference, attention, distance):
    encoder, ids = native(reference, attention), ids_of(7, batch=3)

    assert distance(encoder(ids)[1:2], encoder(ids[1:2])) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_transformers(dtype, reference, attention, distance):
    ids = ids_of(33, batch=4)
    exact = reference(ids).last_hidden_state
    for name, value in reference.named_parameters():
        if dtype == torch.bfloat16 or set(FLOAT32_PARTS_OF_FLOAT16).isdisjoint(name.split(".")):
            value.data = value.data.to(dtype)
    expected = reference(ids).last_hidden_state

    result = native(reference, attention)(ids)

    assert result.dtype == expected.dtype
    assert distance(result, exact) <= 1.1 * distance(expected, exact)


def test_overflow_in_float16_is_clamped_as_in_transformers(reference, attention, distance):
    half = reference.half()
    for block in half.encoder.block:
        block.layer[1].DenseReluDense.wo.weight.mul_(3e4)
    expected = half(ids_of(6)).last_hidden_state

    result = native(half, attention)(ids_of(6))

    assert result.isfinite().all()
    # where the sums overflow depends on the order of adding, how they are brought back does not
    assert distance(result, expected) < 1e-2


def test_weights_are_named_as_in_transformers(reference, attention):
    stored = {stored_name(name): value.shape for name, value in reference.state_dict().items()}
    encoder = UMT5Encoder(UMT5Config(**SIZES, relative_attention_num_buckets=16), attention)

    assert {name: value.shape for name, value in encoder.state_dict().items()} == stored


def test_states_are_padded_with_zeros():
    states = [torch.ones(2, 3), torch.ones(4, 3)]

    assert padded(states).shape == (2, 4, 3)
    assert padded(states, 512).shape == (2, 512, 3)
    assert padded(states, 512).sum() == 18
    assert padded(states)[0, 2:].abs().sum() == 0
