"""Confidence intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Statistic = Callable[[NDArray[np.intp]], float | None]


class Figure(BaseModel):
    """One figure with its interval.

    Attributes:
        value: None where it is undefined (no positive case, an empty reference).
        low: Lower end of the interval; None with fewer than two patients.
        high: Upper end.
        n: How many patients (or studies) it rests on.
    """

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


def bootstrap(
    statistic: Statistic, groups: Sequence[str], resamples: int, confidence: float, seed: int = 0
) -> Figure:
    """Percentile bootstrap over groups (Efron and Tibshirani, 1993; the cluster bootstrap).

    Slices of one patient are not independent, so whole patients are drawn, with all their rows.

    Args:
        statistic: Maps row indices to the figure; None where undefined for these rows.
        groups: The patient group of each row.
        resamples: How many draws; those for which the figure is undefined are left out.
        confidence: For instance 0.95.
        seed: Seed of the draws.
    """
    names = sorted(set(groups))
    array = np.asarray(groups)
    rows = [np.flatnonzero(array == name) for name in names]
    value = statistic(np.arange(len(array)))
    if value is None or len(names) < 2:
        return Figure(value=value, n=len(names))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        chosen = rng.integers(0, len(names), len(names))
        drawn = statistic(np.concatenate([rows[index] for index in chosen]))
        if drawn is not None:
            draws.append(drawn)
    if len(draws) < 2:
        return Figure(value=value, n=len(names))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Figure(value=value, low=float(low), high=float(high), n=len(names))
