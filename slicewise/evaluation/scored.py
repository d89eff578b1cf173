"""Logits of one output beside their truth: what calibration is fitted on and judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import TrainingError


@dataclass(frozen=True)
class Scored:
    """Values of one output.

    Attributes:
        logits: ``[n]`` float32.
        truth: ``[n]``, 0 or 1.
        groups: ``[n]`` the patient group of each, names or codes.
        weights: ``[n]`` how many values of the whole split each stands for; all 1 where nothing was sampled.
        foreground: ``[n]`` whether it is a pixel in or near tumour; None for slices.
    """

    logits: NDArray[np.float32]
    truth: NDArray[np.float32]
    groups: NDArray[Any]
    weights: NDArray[np.float32]
    foreground: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, logits: NDArray[np.float32], truth: NDArray[np.float32], groups: Sequence[str]) -> Scored:
        """Values that each stand for themselves."""
        return cls(logits, truth, np.asarray(groups), np.ones(len(truth), dtype=np.float32))

    def __len__(self) -> int:
        """How many values."""
        return len(self.truth)

    def take(self, rows: NDArray[Any]) -> Scored:
        """The values of ``rows``, indices or a mask."""
        foreground = None if self.foreground is None else self.foreground[rows]
        return Scored(self.logits[rows], self.truth[rows], self.groups[rows], self.weights[rows], foreground)

    @property
    def n_groups(self) -> int:
        """How many patient groups."""
        return len(np.unique(self.groups))

    def require_finite(self, name: str) -> None:
        """Refuse logits that are not numbers.

        Args:
            name: The output, for the message.

        Raises:
            TrainingError: Some logit is NaN or infinite.
        """
        bad = int(np.count_nonzero(~np.isfinite(self.logits)))
        if bad:
            raise TrainingError(
                f"{bad} of {len(self)} logits of {name} are not finite: the training has diverged",
                "train again with a lower learning rate",
            )
