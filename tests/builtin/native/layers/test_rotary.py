"""Rotations of pairs and of halves, with and without a norm, compiled and not."""

import pytest
import torch

from sglang_plugins_builtin.native.layers import RMSNorm, RotaryTable, normed_rotary, rotate_halves, rotate_pairs


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def table(tokens: int, head_dim: int) -> RotaryTable:
    return RotaryTable.of_angles(100 * random(tokens, head_dim // 2, seed=5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairs_turn_as_in_diffusers(dtype: torch.dtype) -> None:
    from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

    heads, rotary = random(2, 7, 3, 8).to(dtype), table(7, 8)

    assert torch.equal(rotate_pairs(heads, rotary), apply_rotary_emb_qwen(heads, rotary.turns, use_real=False))


def test_halves_turn_as_in_transformers() -> None:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

    heads, rotary = random(2, 7, 3, 8), table(7, 8)
    cos, sin = (torch.cat((each, each), dim=-1)[None] for each in (rotary.cos, rotary.sin))

    expected, _ = apply_rotary_pos_emb(heads, heads, cos, sin, unsqueeze_dim=2)

    torch.testing.assert_close(rotate_halves(heads, rotary), expected, rtol=1e-6, atol=1e-6)


def test_views_of_packed_projections_turn_like_copies() -> None:
    packed, rotary = random(2, 7, 48), table(7, 8)
    view = packed.split((24, 24), dim=-1)[1].view(2, 7, 3, 8)

    assert torch.equal(rotate_pairs(view, rotary), rotate_pairs(view.contiguous(), rotary))


def test_compiled_rotation_in_real_numbers_gives_the_same_up_to_the_last_bits() -> None:
    heads, rotary = random(2, 7, 3, 8), table(7, 8)
    torch.compiler.reset()
    compiled = torch.compile(rotate_pairs, backend="eager", fullgraph=True)

    torch.testing.assert_close(compiled(heads, rotary), rotate_pairs(heads, rotary), rtol=1e-6, atol=1e-6)


def test_norm_and_rotation_in_one_round_less_than_one_after_the_other() -> None:
    norm, rotary = RMSNorm(8, 1e-6), table(50, 8)
    norm.weight.data = (1 + 0.1 * random(8, seed=3)).bfloat16()
    heads = random(2, 50, 3, 8).bfloat16()
    wide = RMSNorm(8, 1e-6)
    wide.weight.data = norm.weight.float()
    exact = rotate_pairs(wide(heads.float()), rotary)

    in_one, in_two = normed_rotary(heads, norm, rotary), rotate_pairs(norm(heads), rotary)

    assert in_one.dtype == torch.bfloat16
    assert (in_one - exact).norm() < (in_two - exact).norm()


def test_parts_of_a_table_join_to_the_whole() -> None:
    whole = table(7, 8)

    joined = RotaryTable.join([whole.tokens(0, 3), whole.tokens(3)])

    assert joined.num_tokens == 7
    assert torch.equal(joined.turns, whole.turns)
