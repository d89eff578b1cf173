"""Fitting the out-of-distribution model: training slices tell what is typical, validation slices how rare it is.

Every slice is seen with all its modalities and with some withheld, as callers send any subset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from slicewise.evaluation.ood_slices import BATCH, Numbers, Sample, SideSlices, describe, join
from slicewise.inference.ood import score_parts
from slicewise.inference.ood_distance import RANKS, Gaussian, Matrix, Reference, normal_scores, training_quantiles
from slicewise.inference.ood_model import PARTS, Channels, OodModel, set_of
from slicewise.inference.slice_statistics import INTENSITY, SHAPE, Described, describe_slices
from slicewise.model.network import MultiTaskUNet

COMPONENTS = 64
SUBSETS = 2  # further passes of each training slice, with modalities withheld
ENOUGH = 10  # slices of a channel, or of a set of modalities, to say anything about it
SET_SLICES = 120  # validation slices for each set of modalities
PENALTY = 0.01


def training_sample(network: MultiTaskUNet, train: SideSlices) -> tuple[Sample, list[Described]]:
    """The training slices, whole and with modalities withheld; and wrong views of them (``wrong_views``)."""
    rng = np.random.default_rng(0)
    samples, wrong = [], []
    for images, patients, _ in train.batches():
        samples.append(describe(network, images, patients))
        wrong += wrong_views(images, samples[-1].described)
        samples += [describe(network, withhold(images, rng), patients) for _ in range(SUBSETS)]
    return join(samples), wrong


def held_out_sample(network: MultiTaskUNet, held: SideSlices) -> Sample:
    """The validation slices, with every set of modalities that they can show."""
    found = list(held.batches())
    images = np.concatenate([images for images, _, _ in found])
    groups = np.concatenate([groups for _, groups, _ in found])
    present = np.asarray(images.any(axis=(2, 3)))
    samples = []
    for number in range(1, 2 ** present.shape[1]):
        shown = (number >> np.arange(present.shape[1])) & 1 > 0
        able = np.flatnonzero(present[:, shown].all(axis=1))
        rows = able[np.linspace(0, len(able) - 1, min(SET_SLICES, len(able))).round().astype(int)]
        for part in np.array_split(rows, -(-len(rows) // BATCH) or 1):
            if len(part):
                visible = np.where(shown[:, None, None], images[part], np.float32(0))
                samples.append(describe(network, visible, groups[part]))
    return join(samples)


def withhold(images: Numbers, rng: np.random.Generator) -> Numbers:
    """Each slice with a random subset of its channels, all non-empty subsets equally likely."""
    present = np.asarray(images.any(axis=(2, 3)))
    kept = np.zeros_like(present)
    for row, there in enumerate(present):
        channels = np.flatnonzero(there)
        bits = int(rng.integers(1, 2 ** len(channels)))
        kept[row, channels] = [(bits >> at) & 1 for at in range(len(channels))]
    return np.asarray(images * kept[:, :, None, None], dtype=np.float32)


def wrong_views(images: Numbers, described: Described) -> list[Described]:
    """The slices upside down, on either side and inverted, and with another sequence in each channel.

    Telling true from altered training images needs no labels, and what is learned from it finds outliers: Golan and
    El-Yaniv, "Deep anomaly detection using geometric transformations", NeurIPS 2018.
    """
    turned = [np.rot90(images, turns, axes=(2, 3)) for turns in (1, 2, 3)]
    views = [describe_slices(view) for view in (*turned, -images)]
    channels = images.shape[1]
    for step in range(1, channels):
        order = (np.arange(channels) + step) % channels
        views.append(Described(described.intensity[:, order], described.shape, described.present[:, order]))
    return views


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


def fit_model(train: Sample, wrong: Sequence[Described], held: Sample) -> OodModel:
    """Fit what is typical, then how rare distances are.

    Args:
        train: Training slices, whole and with modalities withheld.
        wrong: Wrong views of them.
        held: Validation slices, with every set of modalities that they can show.
    """
    weights, sets = held.weights(), set_of(held.described.present)
    n_sets = 2 ** train.described.present.shape[1]
    shape = fit_gaussian(train.described.shape)
    features = fit_gaussian(train.pooled, set_of(train.described.present), n_sets)
    blank = Reference(np.zeros(RANKS), 1)
    model = OodModel(
        channels=_fit_channels(train, wrong, shape, held),
        shape=shape,
        features=features,
        shape_rarity=Reference.of(shape.distance(held.described.shape), weights),
        features_rarity=Reference.of(features.distance(held.pooled, sets), weights),
        total=(blank,) * n_sets,
        drift=dict.fromkeys(("score", *PARTS), blank),
    )
    parts = model.parts(held.described, held.pooled)
    model = replace(model, total=_totals(parts.sum(axis=1), sets, weights, n_sets))
    values = {"score": score_parts(model, held.described, parts)} | dict(zip(PARTS, parts.T, strict=True))
    return replace(model, drift={name: Reference.of(found, weights) for name, found in values.items()})


def _fit_channels(train: Sample, wrong: Sequence[Described], shape: Gaussian, held: Sample) -> Channels:
    found = [_fit_channel(at, train, wrong, shape, held) for at in range(train.described.present.shape[1])]
    blank = [np.zeros_like(array) for array in next(row for row in found if row is not None)]
    arrays = [np.stack(rows) for rows in zip(*(blank if row is None else row for row in found), strict=True)]
    return Channels(np.array([float(row is not None) for row in found]), *arrays)


def _fit_channel(
    at: int, train: Sample, wrong: Sequence[Described], shape: Gaussian, held: Sample
) -> list[Matrix] | None:
    """The fields of ``Channels`` but the first, of one modality; None where training has too few slices of it."""
    rows = np.flatnonzero(train.described.present[:, at])
    if len(rows) < ENOUGH:
        return None
    # A modality that no validation patient has is judged by the training slices themselves.
    judge = held if held.described.present[:, at].any() else train
    there = np.flatnonzero(judge.described.present[:, at])
    weights = judge.weights()[there]
    typical = fit_gaussian(train.described.intensity[rows, at])

    def scores(of: Described, which: NDArray[np.intp]) -> Matrix:
        mine = normal_scores(of.intensity[which, at], typical.knots)
        return np.hstack([mine, normal_scores(of.shape[which], shape.knots)])

    altered = [scores(view, np.flatnonzero(view.present[:, at])) for view in wrong]
    view = fit_view(scores(train.described, rows), np.vstack(altered))
    distance = Reference.of(typical.distance(judge.described.intensity[there, at]), weights)
    logits = Reference.of(scores(judge.described, there) @ view[:-1] + view[-1], weights)
    return [
        typical.knots,
        typical.centres[0],
        typical.whiten,
        view,
        distance.knots,
        logits.knots,
        np.array(distance.n),
    ]


def _totals(total: Matrix, sets: NDArray[np.intp], weights: Matrix, n_sets: int) -> tuple[Reference, ...]:
    """Held-out sums of the parts for each set of modalities; of all sets together where there are few slices."""
    rows = [np.flatnonzero(sets == number) for number in range(n_sets)]
    everything = np.arange(len(total))
    chosen = [mine if len(mine) >= ENOUGH else everything for mine in rows]
    return tuple(Reference.of(total[mine], weights[mine]) for mine in chosen)
