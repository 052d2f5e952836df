import json
import math

import pytest
import torch
from diffusers import WanTransformer3DModel

from sglang_core import ModelLoadError
from sglang_plugins_builtin.native.wan.conditions import token_timesteps
from sglang_plugins_builtin.native.wan.transformer import WanTransformer, logarithms_of, stored_name
from sglang_plugins_builtin.native.wan.transformer_config import FLOAT32_PARTS, WanConfig

TEXT = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 40,
    "num_layers": 2,
}
IMAGE = {**TEXT, "in_channels": 12, "image_dim": 20, "added_kv_proj_dim": 24}

#: Both compute in float32; sums in another order differ by some times its rounding, 6e-8.
FLOAT32 = 1e-5


@pytest.fixture
def reference():
    """Make a transformer of diffusers with random weights that matter: norms are not 1, biases not 0."""

    def make(**settings):
        torch.manual_seed(1)
        model = WanTransformer3DModel(**settings).eval().requires_grad_(False)
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.copy_(
                    (1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.2 * torch.randn_like(value)
                )
            elif name.endswith("scale_shift_table"):
                value.copy_(0.5 * torch.randn_like(value))
        return model

    return make


@pytest.fixture
def native(attention):
    """Make ours with the weights of another."""

    def make(model, *, padding="bias", prepares=True):
        config = WanConfig.read(json.loads(model.to_json_string()), "config.json")
        ours = WanTransformer(config, attention, attention, padding=padding)
        assert ours.load_state_dict(model.state_dict(), assign=True) is not None
        if prepares:
            ours.prepare()
        return ours

    return make


def randn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vanilla(model, latents, timestep, states, image=None):
    """As the pipelines call it: with the text padded to 512 and one timestep for each sample."""
    padded = torch.nn.functional.pad(states, (0, 0, 0, 512 - states.shape[1])).to(latents.dtype)
    timestep = timestep.expand(len(latents)) if timestep.dim() == 0 else timestep.expand(len(latents), -1)
    return model(latents, timestep, padded, image, return_dict=False)[0]


def ours(model, latents, timestep, states, image=None):
    rope = model.rope(*latents.shape[2:])
    modulation = model.modulations(timestep.unsqueeze(0))[0]
    return model(latents, model.prepare_text(states, image), rope, modulation)


@pytest.mark.parametrize("padding", ["bias", "log-sum-exp", "rows"])
@pytest.mark.parametrize(
    ("batch", "size", "num_tokens"),
    [(1, (1, 2, 2), 1), (2, (3, 6, 10), 7), (3, (2, 5, 7), 40), (1, (5, 4, 6), 511), (1, (1, 4, 4), 512)],
)
def test_text_to_video_equals_diffusers(padding, batch, size, num_tokens, reference, native, distance):
    model = reference(**TEXT)
    latents, states = randn(batch, 4, *size), randn(batch, num_tokens, 16, seed=4)
    expected = vanilla(model, latents, torch.tensor(937), states)

    result = ours(native(model, padding=padding), latents, torch.tensor(937), states)

    assert result.shape == expected.shape
    assert distance(result, expected) < FLOAT32


@pytest.mark.parametrize(
    "changes",
    [{"cross_attn_norm": False}, {"patch_size": (2, 1, 2)}, {"attention_head_dim": 16}, {"out_channels": None}],
    ids=str,
)
def test_other_shapes_equal_diffusers(changes, reference, native, distance):
    model = reference(**{**TEXT, **changes})
    latents, states = randn(1, 4, 4, 6, 6), randn(1, 9, 16, seed=4)

    result = ours(native(model), latents, torch.tensor(20), states)

    assert distance(result, vanilla(model, latents, torch.tensor(20), states)) < FLOAT32


@pytest.mark.parametrize("padding", ["bias", "log-sum-exp"])
@pytest.mark.parametrize("batch", [1, 2])
def test_image_to_video_equals_diffusers(padding, batch, reference, native, distance):
    model = reference(**{**IMAGE, "added_kv_proj_dim": 24})
    latents, states, image = randn(batch, 12, 2, 4, 6), randn(batch, 5, 16, seed=4), randn(batch, 11, 20, seed=5)
    expected = vanilla(model, latents, torch.tensor(500), states, image)

    result = ours(native(model, padding=padding), latents, torch.tensor(500), states, image)

    assert distance(result, expected) < FLOAT32


def test_first_and_last_image_equal_diffusers(reference, native, distance):
    model = reference(**IMAGE, pos_embed_seq_len=14)
    latents, states, image = randn(2, 12, 2, 4, 6), randn(2, 5, 16, seed=4), randn(4, 7, 20, seed=5)
    expected = vanilla(model, latents, torch.tensor(500), states, image)

    result = ours(native(model), latents, torch.tensor(500), states, image)

    assert distance(result, expected) < FLOAT32


@pytest.mark.parametrize("first_is_given", [True, False])
def test_timesteps_of_tokens_equal_diffusers(first_is_given, reference, native, distance):
    model = reference(**TEXT)
    latents, states = randn(2, 4, 3, 4, 6), randn(2, 5, 16, seed=4)
    timesteps = token_timesteps(torch.tensor([700]), (3, 2, 3), first_is_given=first_is_given)
    expected = vanilla(model, latents, timesteps, states)

    transformer = native(model)
    modulation = transformer.modulations(timesteps)[0]
    result = transformer(latents, transformer.prepare_text(states), transformer.rope(3, 4, 6), modulation)

    assert modulation.lengths == ((6, 12) if first_is_given else ())
    assert distance(result, expected) < FLOAT32


def test_a_timestep_of_its_own_for_every_token_equals_diffusers(reference, native, distance):
    model = reference(**TEXT)
    latents, states, timesteps = randn(1, 4, 2, 4, 4), randn(1, 5, 16, seed=4), torch.arange(8.0).unsqueeze(0) * 100
    transformer = native(model)

    modulation = transformer.modulations(timesteps)[0]
    result = transformer(latents, transformer.prepare_text(states), transformer.rope(2, 4, 4), modulation)

    assert distance(result, vanilla(model, latents, timesteps, states)) < FLOAT32


def test_all_steps_are_modulated_at_once_as_one_by_one(reference, native):
    transformer = native(reference(**TEXT))
    timesteps = torch.tensor([999, 800, 800, 3])

    for timestep, together in zip(timesteps, transformer.modulations(timesteps), strict=True):
        alone = transformer.modulations(timestep.unsqueeze(0))[0]
        torch.testing.assert_close(together.blocks, alone.blocks, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.out, alone.out, rtol=1e-5, atol=1e-6)


def test_one_prompt_serves_a_batch(reference, native, distance):
    transformer = native(reference(**TEXT))
    latents, states = randn(3, 4, 2, 4, 4), randn(1, 5, 16, seed=4)

    result = ours(transformer, latents, torch.tensor(100), states)

    assert distance(result, ours(transformer, latents, torch.tensor(100), states.expand(3, -1, -1))) < FLOAT32


def test_prompts_of_other_lengths_in_a_batch_do_not_matter(reference, native, distance):
    transformer = native(reference(**TEXT))
    latents, states = randn(1, 4, 2, 4, 4), randn(1, 5, 16, seed=4)
    beside = torch.cat([torch.nn.functional.pad(states, (0, 0, 0, 20)), randn(1, 25, 16, seed=5)])

    both = ours(transformer, latents.expand(2, -1, -1, -1, -1), torch.tensor(100), beside)

    assert distance(both[:1], ours(transformer, latents, torch.tensor(100), states)) < FLOAT32


@pytest.mark.parametrize("padding", ["bias", "log-sum-exp"])
@pytest.mark.parametrize("keeps_float32", [True, False])
def test_bfloat16_is_as_exact_as_diffusers(padding, keeps_float32, reference, native, distance):
    # wider and deeper than the others, so that rounding errors are an average of many
    model = reference(**{**TEXT, "num_attention_heads": 4, "attention_head_dim": 32, "ffn_dim": 256, "num_layers": 3})
    latents, states = randn(2, 4, 3, 8, 8), randn(2, 30, 16, seed=4)
    exact = vanilla(model, latents, torch.tensor(937), states)
    for name, value in model.named_parameters():
        if not keeps_float32 or set(FLOAT32_PARTS).isdisjoint(name.split(".")):
            value.data = value.data.bfloat16()
    latents, states = latents.bfloat16(), states.bfloat16()
    with torch.autocast("cpu", enabled=False):
        expected = vanilla(model, latents, torch.tensor(937), states)

    result = ours(native(model, padding=padding), latents, torch.tensor(937), states)

    assert result.dtype == torch.bfloat16
    assert distance(result, exact) <= 1.1 * distance(expected, exact)


def test_a_part_of_the_tokens_has_its_part_of_the_modulation(reference, native):
    transformer = native(reference(**TEXT))
    timesteps = token_timesteps(torch.tensor([700]), (3, 2, 3), first_is_given=True)
    whole = transformer.modulations(timesteps)[0]

    assert whole.tokens(0, 6).lengths == ()
    assert torch.equal(whole.tokens(0, 6).blocks, whole.blocks[:1])
    assert whole.tokens(4, 9).lengths == (2, 3)
    assert torch.equal(whole.tokens(10, 18).blocks, whole.blocks[1:])
    shared = transformer.modulations(torch.tensor([700]))[0]
    assert shared.tokens(4, 9) is shared


def test_weights_are_named_as_in_diffusers(reference, attention):
    for settings in (TEXT, IMAGE, {**IMAGE, "pos_embed_seq_len": 14}, {**TEXT, "cross_attn_norm": False}):
        stored = {name: value.shape for name, value in reference(**settings).state_dict().items()}
        model = WanTransformer(WanConfig(**settings), attention, attention)

        assert {name: value.shape for name, value in model.state_dict().items()} == stored


def test_norms_that_were_never_used_are_left_in_the_file():
    assert stored_name("blocks.0.attn2.norm_added_q.weight") is None
    assert stored_name("blocks.0.attn2.norm_added_k.weight") == "blocks.0.attn2.norm_added_k.weight"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 17, 482, 511, 512])
def test_logarithms_sum_up_to_the_count_in_every_precision(dtype, count):
    numbers = logarithms_of(count, dtype)

    assert sum(math.exp(number) for number in numbers) == pytest.approx(count, rel=1e-5)
    assert torch.tensor(numbers, dtype=dtype).tolist() == numbers
    assert len(numbers) <= (1 if dtype == torch.float32 else 3)


def test_a_configuration_that_is_none_is_named():
    with pytest.raises(ModelLoadError) as caught:
        WanConfig.read({"num_layers": "many"}, "transformer/config.json")

    assert caught.value.problem.startswith("transformer/config.json does not describe a Wan transformer: ")
    assert "num_layers" in caught.value.problem
    assert caught.value.remedy == "download the file again"
