"""The backend without a model: registered by hand into a manager that has nothing else."""

import pytest
import sglang_sliding_tile
import torch

from sglang_core import AttentionNeed, ConfigError, RequestError, UnavailableError, describe_model, plan_attention
from sglang_core.testing import (
    MemorySource,
    bare_manager,
    check_attention_backend,
    make_settings,
    tiny_pipeline_files,
)

BACKEND = sglang_sliding_tile.SlidingTileFlex()
pytestmark = pytest.mark.filterwarnings("ignore")  # flex attention warns that it is not compiled on a CPU


def draw(tokens, heads=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, tokens, heads, 16, generator=generator) for _ in range(3)]


def exact(query, key, value, is_seen=None):
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=is_seen)
    return out.transpose(1, 2)


def test_a_window_as_large_as_the_grid_is_exact():
    tensors = draw(4 * 6 * 5)
    attention = BACKEND.create({"grid": "4x6x5", "tile": "2x3x2", "window": "3x3x3"})

    torch.testing.assert_close(attention.attend(*tensors), exact(*tensors), atol=1e-5, rtol=1e-4)


def test_a_token_sees_the_tiles_around_its_own_and_no_others():
    tensors = draw(1 * 4 * 10)
    attention = BACKEND.create({"grid": "1x4x10", "tile": "1x2x2", "window": "1x1x3"})
    row, column = torch.arange(40) // 10 // 2, torch.arange(40) % 10 // 2  # tiles: 2 rows, 5 columns
    first = (column - 1).clamp(0, 2)  # at the edges the window of 3 moves inwards
    offset = column[None, :] - first[:, None]
    is_seen = (row[:, None] == row[None, :]) & (offset >= 0) & (offset < 3)

    torch.testing.assert_close(attention.attend(*tensors), exact(*tensors, is_seen), atol=1e-5, rtol=1e-4)


def test_what_it_does_not_declare_is_refused():
    query, key, value = draw(8)
    attention = BACKEND.create({"grid": "2x2x2"})

    for call in (
        lambda: attention.attend(query, key, value, mask=torch.ones(8, dtype=torch.bool)),
        lambda: attention.attend(query, key, value, is_causal=True),
        lambda: attention.attend(query, key[:, :4], value[:, :4]),
        lambda: attention.attend_with_lse(query, key, value),
    ):
        with pytest.raises(UnavailableError) as refused:
            call()
        assert refused.value.problem.startswith("attention backend sliding_tile_flex does not compute ")


def test_another_number_of_tokens_is_refused():
    with pytest.raises(RequestError) as refused:
        BACKEND.create({"grid": "2x2x2"}).attend(*draw(9))

    assert "a grid of 2x2x2 = 8 tokens, but the model attends to 9" in refused.value.problem
    assert "grid=FRAMESxROWSxCOLUMNS" in refused.value.remedy


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "needs the grid of tokens"),
        ({"grid": "21x30"}, "grid of sliding_tile_flex is three numbers, not '21x30'"),
        ({"grid": "2x2x0"}, "grid of sliding_tile_flex is three numbers"),
        ({"grid": "2x2x2", "window": "3x2x3"}, "window 3x2x3 has no tile in its middle"),
    ],
)
def test_wrong_parameters_are_refused(parameters, problem):
    with pytest.raises(ConfigError) as refused:
        BACKEND.create(parameters)

    assert problem in refused.value.problem
    assert refused.value.remedy


def test_the_host_takes_it_for_self_attention_only_when_asked_for(tmp_path):
    manager = bare_manager(host_options=True)
    manager.register(sglang_sliding_tile, "sliding_tile")
    model = describe_model(MemorySource("tiny", tiny_pipeline_files(), tmp_path))
    needs = {"transformer.self": AttentionNeed(head_dim=16, num_heads=2)}
    settings = make_settings(
        manager, attention_backend="sliding_tile", attention_backend_config={"grid": "2x2x2", "tile": "1x1x1"}
    )

    plan = plan_attention(manager, needs, model, settings, "cpu", {})

    assert plan.by_role["transformer.self"].value == "sliding_tile_flex"
    assert plan.lossy == ("sliding_tile_flex",)
    with pytest.raises(UnavailableError):
        plan_attention(manager, needs, model, make_settings(manager), "cpu", {})


def test_it_keeps_the_contract_with_a_grid_that_covers_everything():
    class Line(sglang_sliding_tile.SlidingTileFlex):
        """The contract's calls have 37 tokens, or one."""

        def create(self, parameters):
            return Both({tokens: BACKEND.create({"grid": f"1x1x{tokens}", "window": "1x1x99"}) for tokens in (1, 37)})

    class Both:
        def __init__(self, by_tokens):
            self.by_tokens = by_tokens

        def attend(self, query, *arguments, **named):
            return self.by_tokens[query.shape[1]].attend(query, *arguments, **named)

        def attend_with_lse(self, query, *arguments, **named):
            return self.by_tokens[query.shape[1]].attend_with_lse(query, *arguments, **named)

    check_attention_backend(Line(), precision="fp32")
