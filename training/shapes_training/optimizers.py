"""Muon for the matrices, AdamW for everything else, with Muon's work divided among the processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from .products import multiplies_bf16_fast


class Muon:
    """Momentum made orthogonal (Jordan et al., 2024).

    ``torch.optim.Muon`` always computes in bfloat16, which takes a processor without matrix
    units for it twice as long as float32. Updates are scaled to the size of AdamW's, so that one learning rate
    serves both (Liu et al., 2025, arXiv:2502.16982).
    """

    def __init__(self, matrices: Sequence[nn.Parameter], *, weight_decay: float, momentum: float = 0.95) -> None:
        self._weight_decay, self._momentum = weight_decay, momentum
        shapes = sorted({tuple(matrix.shape) for matrix in matrices})
        self._groups = [[matrix for matrix in matrices if tuple(matrix.shape) == shape] for shape in shapes]
        self._averages = [torch.zeros(len(group), *group[0].shape) for group in self._groups]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update all matrices from their gradients."""
        for group, average in zip(self._groups, self._averages, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            average.lerp_(gradient, 1 - self._momentum)
            update = orthogonal(gradient.lerp(average, self._momentum))
            size = 0.2 * max(update.shape[1:]) ** 0.5
            for matrix, part in zip(group, update, strict=True):
                matrix.mul_(1 - learning_rate * self._weight_decay)
                matrix.add_(part, alpha=-learning_rate * size)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Roughly the nearest matrices with singular values of 1, (count, rows, columns), by Newton-Schulz iterations.

    Singular values end between about 0.7 and 1.2; the coefficients of the quintic trade
    exactness for few iterations (Jordan et al., 2024).
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    if multiplies_bf16_fast():
        x = x.bfloat16()
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    x = x.to(matrices.dtype)
    return x.mT if is_tall else x


class Optimizers:
    """Muon on matrices between hidden states, AdamW on embeddings, projections in and out, norms and biases.

    Muon makes each update of a matrix orthogonal, which costs about as much as the
    gradient of a few pictures; every process does so for its share of the matrices and
    all of them exchange the results.

    AdamW decays no weights.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self._adamw = torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self._matrices = list(matrices)
        self._parts = _divide(self._matrices, dist.get_world_size() if dist.is_initialized() else 1)
        self._own = self._parts[dist.get_rank() if dist.is_initialized() else 0]
        self._muon = Muon([self._matrices[index] for index in self._own], weight_decay=weight_decay)

    @classmethod
    def of(cls, module: nn.Module, learning_rate: float, *, weight_decay: float) -> Optimizers:
        """Optimizers for the trainable parameters of a module."""
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        matrices = [parameter for name, parameter in named if parameter.ndim == 2 and _is_hidden(name)]
        others = [parameter for name, parameter in named if parameter.ndim != 2 or not _is_hidden(name)]
        return cls(matrices, others, learning_rate, weight_decay)

    def step(self, learning_rate: float) -> None:
        """Update all parameters from their gradients, which have to be equal in all processes."""
        self._adamw.param_groups[0]["lr"] = learning_rate
        self._adamw.step()
        self._muon.step(learning_rate)
        if len(self._parts) > 1:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for rank, part in enumerate(self._parts):
            matrices = [self._matrices[index] for index in part]
            if not matrices:
                continue
            vector = torch.cat([matrix.flatten() for matrix in matrices])
            dist.broadcast(vector, rank)
            sizes = [matrix.numel() for matrix in matrices]
            for matrix, values in zip(matrices, torch.split(vector, sizes), strict=True):
                matrix.copy_(values.view_as(matrix))

    def state_dict(self) -> dict[str, object]:
        """AdamW's state; Muon's momentum is rebuilt within some twenty steps."""
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on with AdamW's state."""
        self._adamw.load_state_dict(state)


def _divide(matrices: Sequence[torch.Tensor], count: int) -> list[list[int]]:
    """Numbers of the matrices of each process, so that the costs are about equal."""
    parts: list[list[int]] = [[] for _ in range(count)]
    costs = [0] * count
    for index in sorted(range(len(matrices)), key=lambda index: -_cost(matrices[index])):
        cheapest = costs.index(min(costs))
        parts[cheapest].append(index)
        costs[cheapest] += _cost(matrices[index])
    return parts


def _cost(matrix: torch.Tensor) -> int:
    # One Newton-Schulz iteration: two products with the matrix, one of its Gram matrix.
    short, long = sorted(matrix.shape)
    return short * short * (2 * long + short)


def _is_hidden(name: str) -> bool:
    # Modulations are the largest matrices and the easiest to train.
    is_in_block = "transformer_blocks." in name or ".layers." in name
    return is_in_block and "_mod." not in name
