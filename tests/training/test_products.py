from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import nn

from clips_training.train_vae import VaeConfig, create_vae
from clips_training.whole_clip import decode_unclamped, encode_mean, use_whole_clips
from shapes_training import products
from shapes_training.products import use_bf16_products


@pytest.fixture
def matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "multiplies_bf16_fast", lambda: True)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(24, 16), (3, 5, 24)),
        (nn.Linear(24, 16, bias=False), (3, 24)),
        (nn.Conv2d(8, 6, 3, stride=2), (2, 8, 9, 9)),
        (WanCausalConv3d(8, 6, 3, padding=1), (1, 8, 5, 8, 8)),
    ],
    ids=["linear", "linear-without-bias", "frames", "clip"],
)
@pytest.mark.usefixtures("matrix_units")
def test_a_layer_with_bf16_products_differs_by_their_rounding(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    expected = layer(x)
    change = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, [x, *layer.parameters()], change)

    use_bf16_products(layer)
    found = layer(x)

    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    rounded = torch.autograd.grad(found, [x, *layer.parameters()], change)
    for mine, theirs in zip([found, *rounded], [expected, *gradients], strict=True):
        assert mine.dtype == torch.float32
        # Operands and results have 8 bits of mantissa: each rounding adds up to 2^-9 of its value.
        assert (mine - theirs).norm() < 2**-7 * theirs.norm()


@pytest.mark.usefixtures("matrix_units")
def test_every_convolution_of_an_autoencoder_gets_a_gradient() -> None:
    vae = create_vae(VaeConfig(base_dim=4, z_dim=4))
    use_whole_clips(vae)
    use_bf16_products(vae)

    decode_unclamped(vae, encode_mean(vae, torch.rand(1, 3, 5, 16, 16))).square().mean().backward()

    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_nothing_changes_on_processors_that_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "multiplies_bf16_fast", lambda: False)
    layer = nn.Linear(8, 8)
    before = layer(torch.ones(1, 8))

    use_bf16_products(layer)

    assert torch.equal(layer(torch.ones(1, 8)), before)
