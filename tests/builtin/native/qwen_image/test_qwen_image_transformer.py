"""The transformer against that of diffusers: random and trained weights, odd shapes, masks, both precisions."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sglang_core import ModelLoadError
from sglang_plugins_builtin.native.qwen_image.configs import QwenImageTransformerConfig
from sglang_plugins_builtin.native.qwen_image.transformer import QwenImageTransformer

TINY = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}
#: Image grids as (frames, rows, columns): the image that is made, then reference images.
GRIDS = {
    "square": [(1, 4, 4)],
    "odd": [(1, 3, 5)],
    "one token": [(1, 1, 1)],
    "flat": [(1, 1, 7)],
    "one reference": [(1, 3, 4), (1, 5, 2)],
    "two references": [(1, 2, 3), (1, 3, 3), (1, 1, 4)],
}


def vanilla_transformer(seed: int = 0, **changes):
    from diffusers import QwenImageTransformer2DModel

    torch.manual_seed(seed)
    model = QwenImageTransformer2DModel(**{**TINY, **changes}).eval()
    for parameter in model.parameters():  # as different from zero and one as trained weights are
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def ours_of(vanilla, attention, *, prepared: bool = True) -> QwenImageTransformer:
    model = QwenImageTransformer(QwenImageTransformerConfig.from_json(vanilla.config), attention)
    model.load_state_dict(vanilla.state_dict(), assign=True)
    if prepared:
        model.prepare()
    return model


def inputs(vanilla, grids, batch: int, num_text_tokens: int, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    num_tokens = sum(frames * rows * columns for frames, rows, columns in grids)
    latents = torch.randn(batch, num_tokens, vanilla.config.in_channels, generator=generator)
    states = torch.randn(batch, num_text_tokens, vanilla.config.joint_attention_dim, generator=generator)
    return latents.to(vanilla.dtype), states.to(vanilla.dtype)


def run_vanilla(vanilla, latents, states, grids, timestep: float, mask=None):
    times = torch.tensor(timestep).expand(len(latents)).to(latents.dtype)
    return vanilla(
        hidden_states=latents,
        timestep=times / 1000,
        encoder_hidden_states=states,
        encoder_hidden_states_mask=mask,
        img_shapes=[grids] * len(latents),
        return_dict=False,
    )[0]


def run_ours(ours, latents, states, grids, timestep: float, mask=None):
    text = ours.prepare_text(states, mask)
    rotary = ours.rope(grids, text.tokens.shape[1])
    # among other timesteps, since all steps of a run are prepared together
    modulation = ours.modulations(torch.tensor([1000.0, timestep, 3.0]))[1]
    return ours(latents, text, rotary, modulation)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("prepared", [False, True], ids=["as loaded", "prepared"])
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("batch", "num_text_tokens"), [(1, 1), (1, 30), (2, 7), (3, 4)])
def test_velocity_equals_that_of_diffusers(attention, grids, batch, num_text_tokens, prepared) -> None:
    vanilla = vanilla_transformer()
    ours = ours_of(vanilla, attention, prepared=prepared)
    latents, states = inputs(vanilla, grids, batch, num_text_tokens)

    found = run_ours(ours, latents, states, grids, 777.7)

    assert distance(found, run_vanilla(vanilla, latents, states, grids, 777.7)) < 1e-5


MASKS = {
    "padding at the end": [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]],
    "one full, one short": [[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]],
    "holes": [[1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]],
    "nothing hidden": [[1] * 6, [1] * 6],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("as_bool", [True, False])
def test_text_of_different_lengths_is_masked_as_in_diffusers(attention, mask, as_bool) -> None:
    vanilla = vanilla_transformer()
    grids = GRIDS["odd"]
    latents, states = inputs(vanilla, grids, 2, 6)
    mask = torch.tensor(mask, dtype=torch.bool if as_bool else torch.long)

    found = run_ours(ours_of(vanilla, attention), latents, states, grids, 500.0, mask)

    assert distance(found, run_vanilla(vanilla, latents, states, grids, 500.0, mask)) < 1e-5


def test_padding_that_no_prompt_uses_is_cut_and_costs_no_mask(attention) -> None:
    ours = ours_of(vanilla_transformer(), attention)
    states = torch.randn(2, 9, 24)
    mask = torch.arange(9).expand(2, 9) < 5

    text = ours.prepare_text(states, mask)

    assert text.tokens.shape == (2, 5, 48)
    assert text.mask is None


def test_result_does_not_depend_on_the_batch_it_is_in(attention) -> None:
    vanilla = vanilla_transformer()
    ours, grids = ours_of(vanilla, attention), GRIDS["odd"]
    latents, states = inputs(vanilla, grids, 2, 8)
    mask = torch.arange(8) < torch.tensor([[3], [8]])

    together = run_ours(ours, latents, states, grids, 321.0, mask)
    alone = run_ours(ours, latents[:1], states[:1, :3], grids, 321.0)

    assert distance(together[:1], alone) < 1e-6


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_reference_images_are_modulated_as_noise_free_where_the_model_says_so(attention, grids) -> None:
    vanilla = vanilla_transformer(zero_cond_t=True)
    latents, states = inputs(vanilla, grids, 2, 5)

    found = run_ours(ours_of(vanilla, attention), latents, states, grids, 640.0)

    assert distance(found, run_vanilla(vanilla, latents, states, grids, 640.0)) < 1e-5


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_rotations_equal_those_of_diffusers_to_the_bit(attention, grids) -> None:
    vanilla = vanilla_transformer()
    image, text = vanilla.pos_embed([grids], max_txt_seq_len=11, device=torch.device("cpu"))

    rotary = ours_of(vanilla, attention).rope(grids, 11)

    assert torch.equal(rotary.image.turns, image)
    assert torch.equal(rotary.text.turns, text)


@pytest.mark.parametrize("seed", [0, 1])
def test_in_bfloat16_it_is_as_near_to_float32_as_diffusers(attention, seed) -> None:
    exact = vanilla_transformer(seed)
    latents, states = inputs(exact, [(1, 6, 5)], 2, 12, seed)
    rounded = vanilla_transformer(seed).to(torch.bfloat16)
    wanted = run_vanilla(exact, latents, states, [(1, 6, 5)], 777.7)
    latents, states = latents.bfloat16(), states.bfloat16()

    found = run_ours(ours_of(rounded, attention), latents, states, [(1, 6, 5)], 777.7)

    assert found.dtype == torch.bfloat16
    assert distance(found, wanted) <= 1.1 * distance(run_vanilla(rounded, latents, states, [(1, 6, 5)], 777.7), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trained_weights_give_what_they_give_in_diffusers(attention, embedded_model, dtype) -> None:
    from diffusers import QwenImageTransformer2DModel

    folder = embedded_model / "transformer"
    vanilla = QwenImageTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text())
    ours = QwenImageTransformer(QwenImageTransformerConfig.from_json(config), attention)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    ours.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()}, assign=True)
    ours.prepare()
    grids = [(1, 8, 7)]
    latents, states = inputs(vanilla, grids, 1, 17)
    wanted = run_vanilla(vanilla, latents, states, grids, 900.0)

    found = run_ours(ours, latents.to(dtype), states.to(dtype), grids, 900.0)

    if dtype == torch.float32:
        assert distance(found, wanted) < 1e-5
    else:
        rounded = vanilla.to(dtype)
        theirs = run_vanilla(rounded, latents.to(dtype), states.to(dtype), grids, 900.0)
        assert distance(found, wanted) <= 1.1 * distance(theirs, wanted)


def test_preparing_drops_the_text_half_that_nobody_uses(attention) -> None:
    vanilla = vanilla_transformer()

    names = set(ours_of(vanilla, attention).state_dict())

    last = {name.removeprefix("transformer_blocks.2.") for name in names if name.startswith("transformer_blocks.2.")}
    assert not {name for name in last if name.startswith(("txt_mlp", "attn.to_add_out", "attn.norm_added_q"))}
    assert "attn.text_qkv.weight" in last


def test_half_precision_keeps_large_values_finite(attention) -> None:
    ours = ours_of(vanilla_transformer().to(torch.float16), attention, prepared=False)
    ours.transformer_blocks[0].img_mlp.net["2"].bias.data.fill_(65504)
    ours.transformer_blocks[1].img_mlp.net["2"].bias.data.fill_(65504)
    latents, states = inputs(vanilla_transformer().to(torch.float16), [(1, 2, 2)], 1, 3)

    assert torch.isfinite(run_ours(ours, latents, states, [(1, 2, 2)], 500.0)).all()


@pytest.mark.parametrize("setting", ["guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"])
def test_part_that_it_does_not_have_is_refused_by_name(setting) -> None:
    with pytest.raises(ModelLoadError) as refused:
        QwenImageTransformerConfig.from_json({**TINY, setting: True})

    assert refused.value.problem == f"transformer/config.json sets {setting}, which the family qwen-image does not have"
    assert refused.value.remedy == "use --backend diffusers"


def test_rope_axes_that_do_not_fill_a_head_are_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"axes_dims_rope \[4, 6, 8\] do not add up to attention_head_dim 16"):
        QwenImageTransformerConfig.from_json({**TINY, "axes_dims_rope": [4, 6, 8]})


def test_compiled_blocks_are_compiled_once_for_all_steps(attention) -> None:
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    vanilla = vanilla_transformer()
    ours, grids = ours_of(vanilla, attention), [(1, 3, 4)]
    latents, states = inputs(vanilla, grids, 1, 5)
    text, rotary = ours.prepare_text(states), ours.rope(grids, 5)
    modulations = ours.modulations(torch.tensor([900.0, 500.0, 10.0]))
    expected = [ours(latents, text, rotary, modulation) for modulation in modulations]
    torch.compiler.reset()
    for block in ours.streamed_layers():
        block.compile(backend=count, fullgraph=True)

    found = [ours(latents, text, rotary, modulation) for modulation in modulations]

    assert len(graphs) == 2  # the last block has no text output
    assert max(distance(*pair) for pair in zip(found, expected, strict=True)) < 1e-6
