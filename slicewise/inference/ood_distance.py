"""How far something is from typical, and how rare that distance is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from slicewise.slices.kernels.jit import jit

LEVELS = np.linspace(-2.4, 2.4, 33)  # normal scores at which the training quantiles are kept
INNER = 2  # knots left out at either end when the scale beyond the ends is taken
FURTHEST = 20.0
RANKS = 101
TAIL = 90  # the percentile at which the tail begins
LEAST_EXCESS = 0.01  # of a reference that never varies
Matrix = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]


def require(array: Numbers, shape: tuple[int, ...], name: str) -> None:
    """Refuse an array of another shape, or with values that are not finite.

    Raises:
        ValueError: Names the array.
    """
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape} instead of {shape}, or values that are not finite")


def training_quantiles(values: Numbers) -> Matrix:
    """The knots ``[K, len(LEVELS)]`` of ``normal_scores`` for training values ``[N, K]``."""
    return np.asarray(np.quantile(np.asarray(values, dtype=np.float64), ndtr(LEVELS), axis=0).T)


def normal_scores(values: Numbers, knots: Matrix) -> Matrix:
    """Each statistic by its rank among the training values, as the normal distribution's quantile.

    Statistics of slices have heavy tails (the top of a head is small and blurred), which would make every distance
    depend on a few slices. Beyond the ends the score goes on in a straight line, up to ±20, so that what was never
    seen stays far away (van der Waerden, 1952; the Gaussian copula's margins).

    Args:
        values: ``[N, K]``.
        knots: ``[K, len(LEVELS)]``, as ``training_quantiles`` gives them.
    """
    scores = np.empty(values.shape, dtype=np.float64)
    _normal_scores(np.ascontiguousarray(values, dtype=np.float64), knots, LEVELS, scores)
    return scores


@jit
def _normal_scores(values: Any, knots: Any, levels: Any, scores: Any) -> None:
    last = len(levels) - 1
    for column in range(values.shape[1]):
        known = knots[column]
        floor = 1e-3 * abs(known[last // 2]) + 1e-6  # a statistic that never varied
        scale = (known[last - INNER] - known[INNER]) / (levels[last - INNER] - levels[INNER])
        scale = max(scale, floor)
        for row in range(values.shape[0]):
            value = values[row, column]
            low, end = 0, last + 1  # how many knots are below the value
            while low < end:
                middle = (low + end) // 2
                if known[middle] < value:
                    low = middle + 1
                else:
                    end = middle
            high = low
            while high <= last and known[high] == value:
                high += 1
            if high > low:  # as often as not one of several equal knots
                score = (levels[low] + levels[high - 1]) / 2
            elif low == 0:
                score = levels[0] - (known[0] - value) / scale
            elif low > last:
                score = levels[last] + (value - known[last]) / scale
            else:
                share = (value - known[low - 1]) / (known[low] - known[low - 1])
                score = levels[low - 1] + share * (levels[low] - levels[low - 1])
            scores[row, column] = min(max(score, -FURTHEST), FURTHEST)


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of normal scores, with one centre for each group and one covariance for all.

    This is the class-conditional Gaussian of Lee et al. ("A simple unified framework for detecting
    out-of-distribution samples", NeurIPS 2018), whose class is here the set of modalities that the slice has: it is
    known, not guessed.

    Attributes:
        knots: ``[K, len(LEVELS)]`` of ``normal_scores``.
        centres: ``[G, K]``.
        whiten: ``[K, P]``: the inverse covariance is ``whiten @ whiten.T``.
    """

    knots: Matrix
    centres: Matrix
    whiten: Matrix

    def __post_init__(self) -> None:
        width = len(self.knots)
        require(self.knots, (width, len(LEVELS)), "knots")
        require(self.centres, (len(self.centres), width), "centres")
        require(self.whiten, (width, self.whiten.shape[-1]), "whiten")

    def distance(self, values: Numbers, groups: NDArray[np.integer[Any]] | None = None) -> NDArray[np.float64]:
        """Log of the squared Mahalanobis distance per dimension, ``[N]``.

        Args:
            values: ``[N, K]``.
            groups: ``[N]`` row of ``centres``; the first when left out.
        """
        rows = np.zeros(len(values), dtype=np.intp) if groups is None else groups
        return self.distance_of(normal_scores(values, self.knots), rows)

    def distance_of(self, scores: Matrix, rows: NDArray[np.integer[Any]] | int = 0) -> NDArray[np.float64]:
        """``distance`` of what ``normal_scores`` has been applied to already."""
        return log_distance((scores - self.centres[rows]) @ self.whiten)


def log_distance(away: Matrix) -> Matrix:
    """Log of the mean square over the last axis; of no distance at all, of a very small one."""
    return np.asarray(np.log(np.maximum((away**2).mean(axis=-1), 1e-12)))


@dataclass(frozen=True)
class Reference:
    """The distribution of a distance over held-out slices.

    Attributes:
        knots: ``[RANKS]``: its least value, percentiles and greatest value; every patient weighs the same.
        n: Of how many slices.
    """

    knots: Matrix
    n: float

    def __post_init__(self) -> None:
        require(self.knots, (RANKS,), "knots")

    @classmethod
    def of(cls, values: Numbers, weights: Numbers) -> Reference:
        """The reference of values ``[N]`` with weights ``[N]``, N at least 1."""
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
        at = np.searchsorted(reached / reached[-1], np.linspace(0, 1, RANKS) - 1e-12)
        return cls(np.asarray(values, dtype=np.float64)[order][np.minimum(at, len(values) - 1)], len(values))

    def log_p(self, values: Numbers) -> NDArray[np.float64]:
        """Log of the conformal p-value of each value (``log_p_values``)."""
        found = np.asarray(values, dtype=np.float64)[:, None]
        return log_p_values(found, self.knots[None], np.array([self.n], dtype=np.float64))[:, 0]


def log_p_values(values: Matrix, knots: Matrix, n: Matrix) -> Matrix:
    """Log of the p-value: how rare so great a value is.

    Up to the 90th percentile it is the conformal p-value (Vovk et al., 2005). Beyond, ranks of a few hundred slices
    say little, and beyond the greatest of them nothing: there an exponential tail goes on, with the mean excess over
    that percentile (peaks over threshold; Pickands, Ann. Stat. 1975), so that what is further away than anything
    known can still be told apart.

    Args:
        values: ``[N, J]``.
        knots: ``[J, RANKS]`` of ``Reference``, one for each column.
        n: ``[J]`` of ``Reference``.
    """
    found = np.empty(values.shape, dtype=np.float64)
    _log_p(values, knots, n, found)
    return found


@jit
def _log_p(values: Any, knots: Any, n: Any, found: Any) -> None:
    ranks, tail = knots.shape[1], TAIL
    for column in range(values.shape[1]):
        known = knots[column]
        excess = max(known[tail:].mean() - known[tail], LEAST_EXCESS)
        for row in range(values.shape[0]):
            value = values[row, column]
            place, end = 0, ranks  # how many knots are at most the value
            while place < end:
                middle = (place + end) // 2
                if known[middle] <= value:
                    place = middle + 1
                else:
                    end = middle
            below = 0.0
            if place > tail:
                below = tail / (ranks - 1)
            elif place > 0:
                share = (value - known[place - 1]) / (known[place] - known[place - 1])
                below = (place - 1 + share) / (ranks - 1)
            inside = np.log((1 + n[column] * (1 - below)) / (n[column] + 1))
            found[row, column] = inside - max(value - known[tail], 0.0) / excess
