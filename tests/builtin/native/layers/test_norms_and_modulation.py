"""Norms, modulated norms and gates against their plain forms, in float32 and in bfloat16."""

import pytest
import torch
from torch.nn import functional

from sglang_plugins_builtin.native.layers import LayerNorm, Modulation, RMSNorm, gated_add, modulated_norm


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    found, exact = found.detach().double(), exact.double()
    return float((found - exact).norm() / exact.norm())


def rms_norm(size: int, dtype: torch.dtype = torch.float32) -> RMSNorm:
    norm = RMSNorm(size, 1e-6)
    norm.weight.data = (1 + 0.1 * random(size, seed=9)).to(dtype)
    return norm


@pytest.mark.parametrize("shape", [(1, 1, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_rms_norm_equals_that_of_diffusers(shape: tuple[int, ...]) -> None:
    from diffusers.models.normalization import RMSNorm as Vanilla

    norm, vanilla = rms_norm(6), Vanilla(6, eps=1e-6)
    vanilla.load_state_dict(norm.state_dict())

    torch.testing.assert_close(norm(random(*shape)), vanilla(random(*shape)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_norm_rounds_no_more_than_that_of_diffusers(dtype: torch.dtype) -> None:
    from diffusers.models.normalization import RMSNorm as Vanilla

    norm, vanilla = rms_norm(64, dtype), Vanilla(64, eps=1e-6).to(dtype)
    vanilla.load_state_dict(norm.state_dict())
    x = random(2, 50, 64).to(dtype)
    exact = functional.rms_norm(x.double(), (64,), norm.weight.double(), 1e-6)

    found = norm(x)

    assert found.dtype == dtype
    assert distance(found, exact) <= distance(vanilla(x), exact)


def test_rms_norm_leaves_its_input_alone() -> None:
    x = random(2, 6)
    before = x.clone()

    rms_norm(6)(x)

    assert torch.equal(x, before)


def test_layer_norm_equals_that_of_torch() -> None:
    norm, vanilla = LayerNorm(6, 1e-6), torch.nn.LayerNorm(6, eps=1e-6)
    vanilla.weight.data, vanilla.bias.data = random(6, seed=1), random(6, seed=2)
    norm.load_state_dict(vanilla.state_dict())

    assert torch.equal(norm(random(2, 5, 6)), vanilla(random(2, 5, 6)))


@pytest.mark.parametrize("shape", [(6,), (5, 6)], ids=["one for all tokens", "one for each token"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("modulation_dtype", [torch.float32, torch.bfloat16])
def test_modulated_norm_is_the_norm_times_scale_plus_shift(
    shape: tuple[int, ...], dtype: torch.dtype, modulation_dtype: torch.dtype
) -> None:
    x, shift, scale = random(2, 5, 6).to(dtype), random(*shape, seed=1), 1 + random(*shape, seed=2)
    modulation = Modulation(shift.to(modulation_dtype), scale.to(modulation_dtype))
    exact = functional.layer_norm(x.double(), (6,), eps=1e-6) * modulation.scale.double() + modulation.shift.double()

    found = modulated_norm(x, modulation)

    assert found.dtype == dtype
    assert distance(found, exact) < (1e-6 if dtype == torch.float32 else 5e-3)  # bfloat16 has 8 bits


@pytest.mark.parametrize("gate_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_add_is_residual_plus_gate_times_update(dtype: torch.dtype, gate_dtype: torch.dtype) -> None:
    residual, gate, update = (
        random(2, 5, 6).to(dtype),
        random(6, seed=1).to(gate_dtype),
        random(2, 5, 6, seed=2).to(dtype),
    )
    exact = residual.double() + gate.double() * update.double()

    found = gated_add(residual, gate, update)

    assert found.dtype == dtype
    assert distance(found, exact) < (1e-6 if dtype == torch.float32 else 5e-3)


def test_without_a_gate_the_update_is_added() -> None:
    assert torch.equal(gated_add(torch.ones(1, 2, 3), None, torch.ones(1, 2, 3)), torch.full((1, 2, 3), 2.0))
