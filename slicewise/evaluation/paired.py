"""Differences between two models, with intervals and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from slicewise.evaluation.intervals import Figure

Vector = NDArray[np.float64]
RESAMPLES = 5000
# Up to so many patients all sign changes are tried; beyond that, that many are drawn.
EXACT_UP_TO = 13
PERMUTATIONS = 9999
TINY = 1e-12


@dataclass(frozen=True)
class Difference:
    """The difference of two models' figures, B minus A.

    Attributes:
        figure: The difference with its interval and the number of patients.
        method: How interval and p were found.
        p: Two-sided; None where there is no test.
        p_rank: Of Wilcoxon's signed-rank test, which asks about ranks instead of means.
    """

    figure: Figure
    method: str
    p: float | None = None
    p_rank: float | None = None


def paired_means(a: Vector, b: Vector, confidence: float = 0.95, seed: int = 0) -> Difference:
    """Difference of means over the same patients.

    Interval: BCa bootstrap over patients (Efron, 1987), percentile where BCa is undefined. Test: sign-flip
    permutation of the patients' differences (Fisher, 1935), exact for up to 13 patients.

    Args:
        a: ``[n]`` one value per patient, model A.
        b: ``[n]`` of the same patients, model B.
        confidence: For instance 0.95.
        seed: Of resampling and permutations.
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    n = len(difference)
    if n == 0:
        return Difference(Figure(value=None, n=0), "no patient has this figure in both runs")
    value = float(difference.mean())
    if n < 2:
        return Difference(Figure(value=value, n=n), "one patient: no interval, no test")
    low, high, kind = mean_interval(difference, confidence, seed)
    method = (
        f"paired: {kind} bootstrap over patients, {'exact ' if n <= EXACT_UP_TO else ''}sign-flip permutation test"
    )
    return Difference(
        Figure(value=value, low=low, high=high, n=n), method, _sign_flip(difference, seed), _signed_rank(difference)
    )


def mean_interval(values: Vector, confidence: float = 0.95, seed: int = 0) -> tuple[float, float, str]:
    """Bootstrap interval of the mean of at least two patients' values, and its kind."""
    rng = np.random.default_rng(seed)
    if np.ptp(values) > 0 and len(values) > 2:
        found = stats.bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, confidence_level=confidence, method="BCa", rng=rng
        ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            return float(found.low), float(found.high), "BCa"
    drawn = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high), "percentile"


def _sign_flip(difference: Vector, seed: int) -> float:
    """Two-sided p of the mean under random signs: the share of sign changes with a mean as far from 0."""
    n, far = len(difference), abs(difference.mean())
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        reached = np.abs(signs @ difference) / n >= far * (1 - 1e-12)
        return float(reached.mean())
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (PERMUTATIONS, n), dtype=np.int8) * 2 - 1
    reached = np.abs(signs @ difference) / n >= far * (1 - 1e-12)
    # The observed signs are one of the possible ones, so p is never 0 (Phipson and Smyth, 2010).
    return float((reached.sum() + 1) / (PERMUTATIONS + 1))


def _signed_rank(difference: Vector) -> float:
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


def paired_statistic(
    statistic: Callable[[NDArray[np.intp]], float | None], n: int, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """A difference that is no mean over patients, such as that of two ECEs: percentile bootstrap over patients.

    Args:
        statistic: Maps patients' positions to the difference; None where undefined for these patients.
        n: How many patients.
        confidence: For instance 0.95.
        seed: Of the resampling.
    """
    method = "paired: percentile bootstrap over patients, no test"
    value = statistic(np.arange(n)) if n else None
    if value is None or n < 2:
        return Difference(Figure(value=value, n=n), method)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(1000)]
    defined = [found for found in drawn if found is not None]
    if len(defined) < 2:
        return Difference(Figure(value=value, n=n), method)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(Figure(value=value, low=float(low), high=float(high), n=n), method)


def delong(truth: Vector, a: Vector, b: Vector, confidence: float = 0.95) -> Difference:
    """Difference of two ROC-AUCs of the same patients.

    After DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 1988; structural components by mid-ranks (Sun and Xu, 2014).

    Args:
        truth: ``[n]``, 0 or 1.
        a: ``[n]`` scores of model A.
        b: ``[n]`` scores of model B.
        confidence: For instance 0.95.
    """
    n, positive = len(truth), np.asarray(truth) > 0.5
    method = "paired: DeLong's test on patients"
    if not n or positive.all() or not positive.any():
        return Difference(Figure(value=None, n=n), f"{method}; undefined with one class")
    parts = [_components(np.asarray(scores, dtype=np.float64), positive) for scores in (a, b)]
    value = float(parts[1][0].mean() - parts[0][0].mean())
    spread = sum(
        float(np.var(one - zero, ddof=1)) / len(one) for zero, one in zip(*parts, strict=True) if len(one) > 1
    )
    if min(positive.sum(), n - positive.sum()) < 2:
        return Difference(Figure(value=value, n=n), f"{method}; no interval with fewer than two patients of a class")
    if spread <= TINY:
        same = abs(value) <= TINY
        figure = Figure(value=0.0, low=0.0, high=0.0, n=n) if same else Figure(value=value, n=n)
        return Difference(
            figure, method if same else f"{method}; undefined, as neither AUC varies", 1.0 if same else None
        )
    error = float(np.sqrt(spread))
    reach = float(stats.norm.ppf((1 + confidence) / 2)) * error
    p = float(2 * stats.norm.sf(abs(value) / error))
    return Difference(Figure(value=value, low=max(value - reach, -1.0), high=min(value + reach, 1.0), n=n), method, p)


def auc_figure(truth: Vector, scores: Vector, confidence: float = 0.95) -> Figure:
    """The ROC-AUC of one model with DeLong's interval; None with one class."""
    n, positive = len(truth), np.asarray(truth) > 0.5
    if not n or positive.all() or not positive.any():
        return Figure(value=None, n=n)
    of_positive, of_negative = _components(np.asarray(scores, dtype=np.float64), positive)
    value = float(of_positive.mean())
    if min(len(of_positive), len(of_negative)) < 2:
        return Figure(value=value, n=n)
    variance = np.var(of_positive, ddof=1) / len(of_positive) + np.var(of_negative, ddof=1) / len(of_negative)
    reach = float(stats.norm.ppf((1 + confidence) / 2) * np.sqrt(variance))
    return Figure(value=value, low=max(value - reach, 0.0), high=min(value + reach, 1.0), n=n)


def _components(scores: Vector, positive: NDArray[np.bool_]) -> tuple[Vector, Vector]:
    """For every positive the share of negatives below it, for every negative the share of positives above it."""
    all_ranks = stats.rankdata(scores)
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    of_positive = (all_ranks[positive] - stats.rankdata(scores[positive])) / n_neg
    of_negative = 1 - (all_ranks[~positive] - stats.rankdata(scores[~positive])) / n_pos
    return of_positive, of_negative


def independent(a: Figure, b: Figure) -> Difference:
    """Difference of two figures from their intervals alone, for different patients.

    MOVER: the variance is recovered from the confidence limits (Zou and Donner, Stat Med 2008). For the same patients
    it is wider than need be, as far as the two figures go up and down together.
    """
    method = "not paired: from the two intervals (MOVER), no test"
    n = min(a.n, b.n)
    if a.value is None or b.value is None:
        return Difference(Figure(value=None, n=n), method)
    value = b.value - a.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Difference(Figure(value=value, n=n), f"{method}; no interval where a figure has none")
    low = value - float(np.hypot(b.value - b.low, a.high - a.value))
    high = value + float(np.hypot(b.high - b.value, a.value - a.low))
    return Difference(Figure(value=value, low=low, high=high, n=n), method)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number by Holm's step-down procedure (Holm, 1979); None stays None."""
    known = sorted((p, at) for at, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, at) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[at] = highest
    return corrected
