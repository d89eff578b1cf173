"""Which slices make which batch and which optimiser step of an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slicewise.errors import TrainingError


@dataclass(frozen=True)
class Plan:
    """An epoch's batches, for one of several processes.

    A batch of all processes together has ``size * world`` slices, so that two processes learn like one with the
    doubled batch. The last one may be smaller; where it has fewer slices than there are processes it is left out.

    Attributes:
        slices: Slices of an epoch.
        size: Slices in a batch of one process.
        accumulate: Batches that make one optimiser step.
        rank: This process.
        world: How many processes there are.
    """

    slices: int
    size: int
    accumulate: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if 0 < self.slices < self.world:
            raise TrainingError(
                f"{self.slices} training slices are too few for {self.world} processes", "start fewer processes"
            )

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(self.slices, self.size * self.world)
        return whole + (rest >= self.world)

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(self.batches / self.accumulate)

    def rows(self, order: Sequence[int], number: int) -> list[int]:
        """This process's slices of batch ``number``, out of the epoch's ``order``."""
        start, stop = self._bounds(number, 1)
        n = stop - start
        cuts = [start + n * part // self.world for part in (self.rank, self.rank + 1)]
        return list(order[slice(*cuts)])

    def is_step(self, number: int) -> bool:
        """Whether the optimiser takes a step after batch ``number``."""
        return (number + 1) % self.accumulate == 0 or number + 1 == self.batches

    def share(self, number: int, slices: int) -> float:
        """The weight of a batch's mean loss in its optimiser step, so that each slice of the step counts alike.

        Args:
            number: The batch.
            slices: How many of its slices are this process's. Gradients of processes are averaged, not added.
        """
        return slices * self.world / self.step_slices(number)

    def step_slices(self, number: int) -> int:
        """How many slices the optimiser step has that batch ``number`` belongs to."""
        start, stop = self._bounds(number // self.accumulate * self.accumulate, self.accumulate)
        return stop - start

    def _bounds(self, first: int, count: int) -> tuple[int, int]:
        whole = self.size * self.world
        end = min(self.slices, self.batches * whole)
        return first * whole, min((first + count) * whole, end)
