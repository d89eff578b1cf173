"""The processes of one training stage: one, or several under ``torchrun``.

Each process ("rank") works on its part of every batch; gradients are averaged by ``DistributedDataParallel``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from slicewise.model.device import choose_device


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: From 0; rank 0 leads: it alone writes files and shows progress.
        world: How many there are.
        device: Where this process computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of an array over all processes; every one of them has to call."""
        if self.world == 1:
            return values
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(self.device)
        distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, told by its environment; without it, this one alone.

    Uses NCCL where each process has a GPU of its own, else gloo. A group that is there already is used and left.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=choose_device())
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device()
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    mine = not distributed.is_initialized()
    if mine:
        options: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", **options)
    try:
        yield Ranks(rank, world, device)
    finally:
        if mine:
            distributed.destroy_process_group()
