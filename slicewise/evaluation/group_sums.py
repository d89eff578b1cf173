"""Bootstrap over patients of figures that are functions of sums.

Each patient's values are added up once; a draw of patients is then a weighted sum of a few numbers per patient,
however many slices or pixels there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from slicewise.evaluation.intervals import Figure

Sums = NDArray[np.float64]
Statistic = Callable[[Sums], Mapping[str, Sums]]


def add_up(values: Sums, groups: NDArray[np.intp], n_groups: int) -> Sums:
    """Sums of ``values`` ``[n, k]`` per group: ``[n_groups, k]``."""
    columns = [np.bincount(groups, column, minlength=n_groups) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((n_groups, 0))


def bootstrap_sums(
    sums: Sums, statistic: Statistic, resamples: int, confidence: float, seed: int = 0
) -> dict[str, Figure]:
    """Figures with percentile intervals; the draws are those of ``intervals.bootstrap``.

    Args:
        sums: ``[groups, k]``.
        statistic: Maps totals ``[draws, k]`` to figures ``[draws]`` by name; NaN where a figure is undefined.
        resamples: How many draws; those for which a figure is undefined are left out.
        confidence: For instance 0.95.
        seed: Seed of the draws.
    """
    n_groups = len(sums)
    values = statistic(sums.sum(axis=0, keepdims=True))
    drawn: Mapping[str, Sums] = {}
    if n_groups >= 2:
        drawn = statistic(draw_counts(n_groups, resamples, seed) @ sums)
    return {
        name: summarise_draws(float(value[0]), drawn.get(name), confidence, n_groups)
        for name, value in values.items()
    }


def draw_counts(n_groups: int, resamples: int, seed: int = 0) -> Sums:
    """How often each group is in each draw: ``[resamples, n_groups]``."""
    chosen = np.random.default_rng(seed).integers(0, n_groups, (resamples, n_groups))
    flat = chosen + n_groups * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * n_groups)
    return counts.reshape(resamples, n_groups).astype(np.float64)


def summarise_draws(value: float, draws: Sums | None, confidence: float, n: int) -> Figure:
    """A figure with its percentile interval.

    Args:
        value: NaN where it is undefined.
        draws: ``[draws]``, NaN where undefined; None with fewer than two groups.
        confidence: For instance 0.95.
        n: How many groups.
    """
    if np.isnan(value):
        return Figure(value=None, n=n)
    defined = np.zeros(0) if draws is None else draws[~np.isnan(draws)]
    if len(defined) < 2:
        return Figure(value=value, n=n)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    # A draw adds noise to gaps, which are absolute: all draws of a small calibration error may lie above it.
    return Figure(value=value, low=min(float(low), value), high=max(float(high), value), n=n)
