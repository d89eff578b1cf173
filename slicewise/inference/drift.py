"""Drift: whether recent inputs still look like the slices that the out-of-distribution score was calibrated with.

Pure functions of the values that were served (``Prediction.ood_score``, ``Prediction.ood_parts``) and of the
references in the bundle (``OodModel.drift``); whoever serves keeps the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from slicewise.inference.ood_distance import RANKS, Matrix, Reference

WINDOW = 500
FEWEST = 50
BINS = 10
PSI_LIMIT = 0.2  # the custom of credit scoring (Siddiqi, 2006): from here on the population has shifted
SURE = 0.999


@dataclass(frozen=True)
class Drift:
    """How far one window of values is from its reference.

    Attributes:
        n: Finite values in the window.
        psi: Population stability index; None with too few values.
        psi_limit: What it may be: at least 0.2, more where so few values would often give more by chance.
        ks: Kolmogorov-Smirnov distance.
        ks_p: Its p-value, as if the values were independent. Slices of one study are not: widen the window, or give
            one value per study, before reading much into it.
        drifted: Both tests speak for a shift; None with too few values.
    """

    n: int
    psi: float | None = None
    psi_limit: float | None = None
    ks: float | None = None
    ks_p: float | None = None
    drifted: bool | None = None


def watch(
    references: Mapping[str, Reference], served: Mapping[str, Sequence[float]], window: int = WINDOW
) -> dict[str, Drift]:
    """The drift of the last ``window`` values of everything that is watched.

    Args:
        references: ``OodModel.drift``.
        served: Name → values, oldest first; a name that is missing has none.
        window: How many of the latest values are looked at.
    """
    return {name: measure(found, list(served.get(name, ()))[-window:]) for name, found in references.items()}


def over_time(reference: Reference, values: Sequence[float], window: int = WINDOW) -> list[Drift]:
    """The drift of one window after the other; the last one may be shorter."""
    return [measure(reference, values[start : start + window]) for start in range(0, len(values), window)]


def measure(reference: Reference, values: Sequence[float] | NDArray[np.floating[Any]]) -> Drift:
    """Compare values with their reference; those that are not finite (failed items) are left out."""
    given = np.asarray(values, dtype=np.float64)
    found = given[np.isfinite(given)]
    n = len(found)
    if n < FEWEST:
        return Drift(n)
    psi, bins = stability_index(reference, found)
    # Without any drift the index follows a scaled chi-squared distribution (Yurdakul and Naranjo, J. Risk Model
    # Validation 2020).
    by_chance = stats.chi2.ppf(SURE, max(bins - 1, 1)) * (1 / n + 1 / reference.n)
    limit = max(PSI_LIMIT, float(by_chance))
    distance = kolmogorov_smirnov(reference, found)
    effective = max(1, round(n * reference.n / (n + reference.n)))
    p = float(stats.kstwo.sf(distance, effective))
    return Drift(n, psi, limit, distance, p, bool(psi > limit and p < 1 - SURE))


def stability_index(reference: Reference, values: Matrix) -> tuple[float, int]:
    """The population stability index over the reference's deciles, and how many bins these make.

    The sum over the bins of ``(share - expected) * ln(share / expected)``; half a count is added to every bin, so
    that an empty one does not make it infinite. Equal deciles share a bin.
    """
    edges = np.unique(reference.knots[:: RANKS // BINS][1:-1])
    expected = np.diff(np.concatenate([[0.0], _reached(reference, edges, "right"), [1.0]]))
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    # A bin that the reference never fills (its greatest value is a decile) still counts, as half a slice.
    expected = (expected * reference.n + 0.5) / (reference.n + 0.5 * len(expected))
    share = (counts + 0.5) / (len(values) + 0.5 * len(counts))
    return max(0.0, float(np.sum((share - expected) * np.log(share / expected)))), len(counts)


def kolmogorov_smirnov(reference: Reference, values: Matrix) -> float:
    """The greatest distance between the values' distribution function and the reference's."""
    ordered = np.sort(values)
    at = np.union1d(ordered, reference.knots)
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    gaps = [np.searchsorted(ordered, at, side) / len(ordered) - _reached(reference, at, side) for side in sides]
    return float(np.abs(gaps).max())


def _reached(reference: Reference, at: Matrix, side: Literal["left", "right"]) -> Matrix:
    """The reference's distribution function at some points; ``left`` leaves out the points themselves.

    Between two of its percentiles it rises in a straight line; where several are equal it jumps.
    """
    levels = np.linspace(0, 1, RANKS)
    # Of equal knots numpy takes the last; seen from the other end that is the first.
    if side == "left":
        return np.clip(1 - np.interp(-at, -reference.knots[::-1], levels), 0.0, 1.0)
    return np.clip(np.interp(at, reference.knots, levels), 0.0, 1.0)
