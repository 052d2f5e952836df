"""A small training, in a module of its own so that spawned processes can import it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from shapes_training.optimizers import Optimizers


class SmallNetwork(nn.Module):
    """An embedding and three layers, named as in a transformer: only matrices within layers are Muon's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(4, 6)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 12), nn.Linear(12, 6)])})

    def loss(self) -> torch.Tensor:
        """How far the network is from a ramp."""
        x = self.embedding(torch.arange(4))
        for layer in self.encoder["layers"]:
            x = torch.tanh(layer(x))
        return (x - torch.linspace(-0.5, 0.5, 6)).square().mean()


class TrainIn:
    """Train and save the weights to ``out``, under the number of processes and the rank."""

    def __init__(self, out: Path, steps: int = 40) -> None:
        self.out = out
        self.steps = steps

    def __call__(self, rank: int) -> None:
        network = SmallNetwork()
        optimizers = Optimizers.of(network, 1e-2, weight_decay=0.0)
        for _ in range(self.steps):
            network.zero_grad()
            network.loss().backward()
            optimizers.step(1e-2)
        count = dist.get_world_size() if dist.is_initialized() else 1
        torch.save(network.state_dict(), self.out / f"{count}-{rank}.pt")


class SayAndSleep:
    """Leave a file named after the process, then do nothing until it is ended."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, rank: int) -> None:
        (self.out / f"pid-{os.getpid()}").touch()
        time.sleep(3600)
