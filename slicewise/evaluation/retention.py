"""Whether uncertainty points at errors: the error-retention curve, and the AUROC of uncertainty against error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
# Errors are few, so what matters happens while the first few percent are handed over.
FIRST_PERCENTS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075)
HANDED_OVER = (*FIRST_PERCENTS, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RETAINED = tuple(round(1 - share, 3) for share in reversed(HANDED_OVER))


@dataclass(frozen=True)
class Retention:
    """An error-retention curve (Malinin et al., "Shifts", NeurIPS 2021 data sets track).

    The most uncertain voxels are handed over to an expert, who labels them rightly; the rest is retained. Errors are
    counted over all voxels. Voxels of equal uncertainty are handed over in random order.

    Attributes:
        error: Share of wrong voxels when the share ``RETAINED`` is retained, and its straight continuation between.
        area: Area under the curve; lower is better.
        random: That of a random order: half the error.
        ideal: That of an order with all errors first.
        rejection_ratio: How much of the way from random to ideal the order goes (Malinin et al., ICLR 2021): 1 is
            ideal, 0 is random; None where there is no error or nothing else.
    """

    error: tuple[float, ...]
    area: float
    random: float
    ideal: float
    rejection_ratio: float | None


def retention_curve(wrong: Counts, right: Counts) -> Retention | None:
    """The curve of voxels counted by rising uncertainty.

    Args:
        wrong: ``[K]`` wrong voxels of each level.
        right: ``[K]`` right ones.

    Returns:
        None without voxels.
    """
    total, errors = float((wrong + right).sum()), float(wrong.sum())
    if not total:
        return None
    retained = np.concatenate([[0.0], np.cumsum(wrong + right)]) / total
    error = np.concatenate([[0.0], np.cumsum(wrong)]) / total
    rate = errors / total
    area, random, ideal = float(np.trapezoid(error, retained)), rate / 2, rate**2 / 2
    ratio = (random - area) / (random - ideal) if 0 < rate < 1 else None
    points = tuple(float(value) for value in np.interp(RETAINED, retained, error))
    return Retention(points, area, random, ideal, ratio)


def ideal_curve(rate: float) -> tuple[float, ...]:
    """The curve at ``RETAINED`` of an order with all errors first."""
    return tuple(max(0.0, share - (1 - rate)) for share in RETAINED)


def auroc_of_counts(wrong: Counts, right: Counts) -> Counts:
    """Chance that a wrong item is more uncertain than a right one, ties counting half.

    The area under the ROC curve of uncertainty as a detector of errors (Hanley and McNeil, Radiology 1982).

    Args:
        wrong: ``[..., K]`` wrong items by rising uncertainty.
        right: ``[..., K]`` right ones.

    Returns:
        ``[...]``; NaN where all items are wrong or all right.
    """
    below = np.cumsum(right, axis=-1) - right / 2
    pairs = wrong.sum(axis=-1) * right.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Counts = np.where(pairs > 0, (wrong * below).sum(axis=-1) / pairs, np.nan)
    return area
