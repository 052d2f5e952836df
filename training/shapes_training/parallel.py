"""Data parallelism over processes: one thread each waits less for its neighbours than many threads do."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn


class Gradients:
    """All gradients as one vector, which processes average together with a few numbers."""

    def __init__(self, parameters: Sequence[nn.Parameter], num_numbers: int) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self._vector = torch.zeros(sum(sizes) + num_numbers)
        *parts, self._numbers = torch.split(self._vector, [*sizes, num_numbers])
        for parameter, part in zip(parameters, parts, strict=True):
            # Backward passes add to a gradient that exists already, hence into the vector. Fused
            # optimizers read memory in order, so that the strides have to be those of the parameter.
            parameter.grad = part.as_strided(parameter.shape, parameter.stride())
        self._gradients = self._vector[: sum(sizes)]

    def reset(self) -> None:
        """Set all gradients to zero, and keep them where they are."""
        self._vector.zero_()

    def average(self, numbers: Sequence[float], max_norm: float) -> list[float]:
        """Average gradients and numbers over all processes, limit the norm; return the numbers."""
        self._numbers.copy_(torch.tensor(numbers))
        if dist.is_initialized():
            dist.all_reduce(self._vector)
            self._vector /= dist.get_world_size()
        norm = self._gradients.norm()
        self._gradients *= (max_norm / (norm + 1e-6)).clamp(max=1.0)
        averages: list[float] = self._numbers.tolist()
        return averages


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Give every process the first one's tensor."""
    if dist.is_initialized():
        dist.broadcast(tensor, 0)
    return tensor


def run_processes(count: int, folder: Path, work: Callable[[int], None]) -> None:
    """Call ``work(rank)`` in ``count`` processes that can average; in this one if it is a single one.

    :param work: has to be picklable.
    """
    if count == 1:
        work(0)
        return
    meeting = (folder / "meeting").absolute()
    meeting.unlink(missing_ok=True)
    spawn(_run, args=(count, meeting, work), nprocs=count)  # type: ignore[no-untyped-call]  # torch's gap


def _run(rank: int, count: int, meeting: Path, work: Callable[[int], None]) -> None:
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(asctime)s %(message)s")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    try:
        work(rank)
    finally:
        dist.destroy_process_group()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end with it: killed, it could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
