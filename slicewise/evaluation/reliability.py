"""How well probabilities match frequencies: bins, errors, and the parts of the Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
TINY = 1e-7


def log_losses(probability: Vector, truth: Vector) -> Floats:
    """Binary negative log-likelihood of each value in nats; probabilities are kept ``1e-7`` away from 0 and 1."""
    p = np.clip(probability.astype(np.float64), TINY, 1 - TINY)
    losses: Floats = -(truth * np.log(p) + (1 - truth) * np.log1p(-p))
    return losses


@dataclass(frozen=True)
class Bins:
    """Which bin each value is in.

    Attributes:
        index: ``[n]``.
        edges: ``[bins + 1]`` from 0 to 1.
    """

    index: NDArray[np.intp]
    edges: Floats

    @property
    def count(self) -> int:
        """How many bins, empty ones too."""
        return len(self.edges) - 1


def equal_width(probability: Vector, n_bins: int) -> Bins:
    """Bins of equal width; a value on an edge belongs to the bin above."""
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    return Bins(np.clip(np.digitize(probability, edges[1:-1]), 0, n_bins - 1), edges)


def equal_mass(probability: Vector, weights: Vector, n_bins: int) -> Bins:
    """Bins that hold equal weight, as far as ties allow: equal values share a bin, so there may be fewer.

    After Nguyen and O'Connor, "Posterior calibration and exploratory analysis for NLP models", EMNLP 2015.
    """
    order = np.argsort(probability)
    reached = np.cumsum(weights[order], dtype=np.float64)
    wanted = reached[-1] * np.arange(1, n_bins) / n_bins if len(order) else np.zeros(0)
    # Sums of weights are not exact: without the slack a full bin would take one value more.
    cuts = np.unique(probability[order][np.searchsorted(reached, wanted * (1 - 1e-9))])
    return Bins(np.searchsorted(cuts, probability), np.concatenate([[0.0], cuts, [1.0]]))


def bin_sums(bins: Bins, probability: Vector, truth: Vector, weights: Vector, groups: NDArray[np.intp]) -> Floats:
    """Sums of weight, weighted probability and weighted truth per group and bin: ``[groups, bins, 3]``."""
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    place = groups * bins.count + bins.index
    columns = [
        np.bincount(place, column, minlength=n_groups * bins.count)
        for column in (weights, weights.astype(np.float64) * probability, weights.astype(np.float64) * truth)
    ]
    return np.stack(columns, axis=-1).reshape(n_groups, bins.count, 3).astype(np.float64)


def gaps(sums: Floats) -> tuple[Floats, Floats]:
    """Expected and maximum calibration error of bin sums ``[..., bins, 3]``; NaN where there is no value.

    Mean (after Naeini et al., AAAI 2015) and largest gap between probability and frequency, on the probability
    of tumour and not on the winning class's confidence.
    """
    weight, gap = sums[..., 0], np.abs(sums[..., 1] - sums[..., 2])
    expected = _divide(gap.sum(axis=-1), weight.sum(axis=-1))
    return expected, np.where(np.isnan(expected), np.nan, np.max(_divide(gap, weight, 0.0), axis=-1))


def brier_parts(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Reliability, resolution and uncertainty of bin sums ``[..., bins, 3]`` (Murphy, 1973).

    Reliability - resolution + uncertainty is the Brier score of the bins' mean probabilities. That of the
    probabilities themselves differs by what they vary within the bins (Stephenson et al., 2008).
    """
    weight = sums[..., 0]
    total = weight.sum(axis=-1)
    base = _divide(sums[..., 2].sum(axis=-1), total)
    probability, frequency = _divide(sums[..., 1], weight, 0.0), _divide(sums[..., 2], weight, 0.0)
    reliability = _divide((weight * (probability - frequency) ** 2).sum(axis=-1), total)
    resolution = _divide((weight * (frequency - base[..., None]) ** 2).sum(axis=-1), total)
    return reliability, resolution, base * (1 - base)


def describe_bins(bins: Bins, sums: Floats) -> list[dict[str, float]]:
    """Rows of a reliability diagram from bin sums ``[bins, 3]``; empty bins are left out.

    ``n`` counts the values, ``share`` is the part of the whole that they stand for.
    """
    counts, total = np.bincount(bins.index, minlength=bins.count), sums[:, 0].sum()
    return [
        {
            "low": float(bins.edges[at]),
            "high": float(bins.edges[at + 1]),
            "n": int(counts[at]),
            "share": float(weight / total),
            "probability": float(probability / weight),
            "frequency": float(truth / weight),
        }
        for at, (weight, probability, truth) in enumerate(sums)
        if weight > 0
    ]


def expected_calibration_error(probability: Vector, truth: Vector, n_bins: int) -> float:
    """ECE over equal-width bins of values that count the same."""
    ones, everyone = np.ones(len(probability)), np.zeros(len(probability), dtype=np.intp)
    sums = bin_sums(equal_width(probability, n_bins), probability, truth, ones, everyone)
    return float(gaps(sums.sum(axis=0))[0])


def _divide(part: Floats, whole: Floats, empty: float = np.nan) -> Floats:
    share: Floats = np.divide(part, whole, out=np.full(np.shape(part), empty), where=whole > 0)
    return share
