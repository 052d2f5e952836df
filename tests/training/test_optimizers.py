from __future__ import annotations

from pathlib import Path

import pytest
import torch
from muon_worker import SmallNetwork, TrainIn
from torch import nn

from shapes_training import optimizers
from shapes_training.optimizers import Muon, Optimizers, orthogonal
from shapes_training.parallel import run_processes


@pytest.mark.parametrize("shape", [(8, 8), (4, 10), (10, 4)])
def test_orthogonal_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    # Condition number 2: the iterations bring small singular values up more slowly.
    left, _, right = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    matrices = left * torch.linspace(1.0, 2.0, min(shape)) @ right

    values = torch.linalg.svdvals(orthogonal(matrices))

    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 8), (4, 10), (10, 4)])
def test_the_size_of_matrices_does_not_matter(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "multiplies_bf16_fast", lambda: False)  # float32, whatever the processor has
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)

    torch.testing.assert_close(orthogonal(5 * matrices), orthogonal(matrices))


def test_muon_moves_every_direction_equally_far() -> None:
    matrix = nn.Parameter(torch.zeros(2, 2))
    matrix.grad = torch.diag(torch.tensor([1.0, 1e-2]))

    Muon([matrix], weight_decay=0.0).step(0.1)

    moved = matrix.detach().diagonal()
    assert (moved < 0).all()
    assert moved[1] / moved[0] > 0.5


def test_processes_that_share_the_work_end_with_the_same_weights_as_one(tmp_path: Path) -> None:
    TrainIn(tmp_path)(0)
    run_processes(2, tmp_path, TrainIn(tmp_path))
    alone = torch.load(tmp_path / "1-0.pt", weights_only=True)

    for rank in range(2):
        together = torch.load(tmp_path / f"2-{rank}.pt", weights_only=True)
        for name, value in alone.items():
            # One thread or two sum products in another order; forty steps let that grow a little.
            torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-4)


def test_optimizers_lower_the_loss() -> None:
    network = SmallNetwork()
    before = network.loss().item()
    optimizers = Optimizers.of(network, 1e-2, weight_decay=0.0)

    for _ in range(60):
        network.zero_grad()
        network.loss().backward()
        optimizers.step(1e-2)

    assert network.loss().item() < before / 10
