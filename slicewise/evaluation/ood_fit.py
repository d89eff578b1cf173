"""Fitting what is typical: Gaussians of training slices' statistics and features, and wrong-view classifiers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from slicewise.evaluation.ood_slices import Numbers, Sample
from slicewise.inference.ood_distance import (
    LEVELS,
    RANKS,
    Gaussian,
    Matrix,
    Reference,
    normal_scores,
    training_quantiles,
)
from slicewise.inference.ood_model import PARTS, Channels, OodModel, set_of
from slicewise.inference.slice_statistics import INTENSITY, SHAPE

COMPONENTS = 64
ENOUGH = 10  # slices of a channel, or of a set of modalities, to say anything about it
PENALTY = 0.001


def fit_gaussian(values: Numbers, sets: NDArray[np.intp] | None = None, n_sets: int = 1) -> Gaussian:
    """Normal scores, a centre for every set of modalities, and one covariance shrunk after Ledoit and Wolf (2004).

    Args:
        values: ``[N, K]``.
        sets: ``[N]``: which centre each belongs to; those of too few slices get the mean of all.
        n_sets: How many centres there are.
    """
    knots = training_quantiles(values)
    scores = normal_scores(values, knots)
    member = np.zeros(len(values), dtype=np.intp) if sets is None else sets
    centres = np.tile(scores.mean(axis=0), (n_sets, 1))
    for number in np.unique(member):
        rows = scores[member == number]
        if len(rows) >= ENOUGH:
            centres[number] = rows.mean(axis=0)
    return Gaussian(knots, centres, whitening(scores - centres[member]))


def whitening(residuals: Matrix) -> Matrix:
    """``[K, P]``: makes residuals ``[N, K]`` white, in their first P principal components (at most ``COMPONENTS``).

    The covariance is shrunk within these components. Of fewer than P + 1 residuals, the last columns are 0.
    """
    _, _, axes = np.linalg.svd(residuals, full_matrices=False)
    kept = axes[: min(COMPONENTS, residuals.shape[1], len(residuals) - 1)].T
    values, vectors = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(residuals @ kept).covariance_)
    # A statistic that never varies would have an infinite weight.
    white = kept @ vectors / np.sqrt(np.maximum(values, 1e-6))
    return np.pad(white, ((0, 0), (0, min(COMPONENTS, residuals.shape[1]) - white.shape[1])))


def fit_view(true: Matrix, wrong: Matrix) -> Matrix:
    """Weights and bias of the logit of a wrong view, ``[K + 1]``; zeros where there is nothing to learn from."""
    if len(true) < ENOUGH or len(wrong) < ENOUGH:
        return np.zeros(len(INTENSITY) + len(SHAPE) + 1)
    truth = np.repeat([0, 1], [len(true), len(wrong)])
    found = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000).fit(np.vstack([true, wrong]), truth)
    return np.append(found.coef_[0], found.intercept_[0])


def fit_typical(train: Sample, wrong: Sample) -> OodModel:
    """What is typical; how rare distances are is left blank.

    Args:
        train: Training slices, whole and with modalities withheld.
        wrong: Wrong views of them.
    """
    sets = set_of(train.described.present)
    n_channels = train.described.present.shape[1]
    shape = fit_gaussian(train.described.shape)
    blank = Reference(np.zeros(RANKS), 1)
    return OodModel(
        channels=_fit_channels(train, wrong, shape),
        shape=shape,
        features=fit_gaussian(train.pooled, sets, 2**n_channels),
        shape_rarity=blank,
        features_rarity=blank,
        total=(blank,) * 2**n_channels,
        drift=dict.fromkeys(("score", *PARTS), blank),
    )


def _fit_channels(train: Sample, wrong: Sample, shape: Gaussian) -> Channels:
    n, k = train.described.present.shape[1], len(INTENSITY)
    seen = np.zeros(n)
    knots, centres, whiten = np.zeros((n, k, len(LEVELS))), np.zeros((n, k)), np.zeros((n, k, k))
    view = np.zeros((n, k + len(SHAPE) + 1))
    for at in range(n):
        true, altered = (sample.take(sample.described.present[:, at]) for sample in (train, wrong))
        if len(true) < ENOUGH:
            continue
        seen[at] = 1
        typical = fit_gaussian(true.described.intensity[:, at])
        knots[at], centres[at], whiten[at] = typical.knots, typical.centres[0], typical.whiten
        view[at] = fit_view(*(_view_scores(sample, at, typical, shape) for sample in (true, altered)))
    blank = np.zeros((n, RANKS))
    return Channels(seen, knots, centres, whiten, view, rarity=blank, view_rarity=blank, n=np.ones(n))


def _view_scores(sample: Sample, at: int, typical: Gaussian, shape: Gaussian) -> Matrix:
    """What the wrong-view classifier of channel ``at`` looks at."""
    mine = normal_scores(sample.described.intensity[:, at], typical.knots)
    return np.hstack([mine, normal_scores(sample.described.shape, shape.knots)])
