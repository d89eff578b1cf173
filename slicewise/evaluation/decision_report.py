"""The section ``decision`` of ``metrics.json``: the threshold and the band of unsure answers on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import EvaluateConfig
from slicewise.evaluation.group_sums import Sums, add_up, bootstrap_sums
from slicewise.inference.calibration import Calibration

ANSWERS = ("no_tumour", "unsure", "tumour")
Vector = NDArray[np.floating[Any]]


def decision_section(
    probability: Vector, truth: Vector, groups: Sequence[str], calibration: Calibration, config: EvaluateConfig
) -> dict[str, Any]:
    """The rule, and how it fares.

    A slice is covered when it got no wrong sure answer. Coverage is promised for a random slice of a random patient:
    it is the mean over patients of each one's share of covered slices, of either class. ``unsure_share`` and
    ``error_share_when_sure`` are shares of slices.

    Args:
        probability: ``[n]`` calibrated, of test slices.
        truth: ``[n]``, 0 or 1.
        groups: The patient group of each.
        calibration: The bundle's.
        config: The section ``evaluate``.

    Returns:
        ``{"threshold", "rule", "abstain", "reason"}``; ``abstain`` is None where there is no band. ``confusion3``
        has a row for each truth (free of tumour, tumour) and the columns of ``ANSWERS``.
    """
    rule, band = calibration.threshold, calibration.abstain
    section = {"threshold": rule.value, "rule": rule.rule, "abstain": None, "reason": band.reason}
    if not band.available:
        return section
    answer = answers(probability, calibration)
    counts = np.zeros((len(truth), 2, 3))
    counts[np.arange(len(truth)), truth.astype(int), answer] = 1
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = add_up(counts.reshape(len(truth), 6), index, len(names))
    sums = np.concatenate([sums, _covered(sums)], axis=1)
    figures = bootstrap_sums(sums, _figures, config.bootstrap, config.confidence)
    abstain = band.model_dump(mode="json", include={"alpha", "low", "high", "patients"})
    abstain |= {"coverage_target": 1 - (band.alpha or 0.0), "confusion3": counts.sum(axis=0).astype(int).tolist()}
    abstain |= {name: figure.model_dump() for name, figure in figures.items()}
    return section | {"abstain": abstain}


def answers(probability: Vector, calibration: Calibration) -> NDArray[np.intp]:
    """Index in ``ANSWERS`` of each slice's answer."""
    low, high = calibration.band()
    return np.where(probability >= high, 2, np.where(probability < low, 0, 1))


def _covered(sums: Sums) -> Sums:
    """Per patient: share covered and 1, for all slices, those free of tumour and those with; 0 and 0 where none."""
    counts = sums.reshape(-1, 2, 3)
    n, wrong = counts.sum(axis=2), np.stack([counts[:, 0, 2], counts[:, 1, 0]], axis=1)
    n, wrong = (np.concatenate([part.sum(axis=1, keepdims=True), part], axis=1) for part in (n, wrong))
    there = n > 0
    return np.concatenate([np.where(there, 1 - wrong / np.maximum(n, 1), 0.0), there], axis=1)


def _figures(totals: Sums) -> Mapping[str, Sums]:
    counts, covered, patients = totals[:, :6].reshape(-1, 2, 3), totals[:, 6:9], totals[:, 9:]
    n, unsure = counts.sum(axis=(1, 2)), counts[:, :, 1].sum(axis=1)
    errors = counts[:, 0, 2] + counts[:, 1, 0]
    with np.errstate(invalid="ignore"):  # 0 / 0 is undefined, as wanted
        coverage = covered / patients
        shares = {"unsure_share": unsure / n, "error_share_when_sure": errors / (n - unsure)}
    names = ("coverage", "coverage_no_tumour", "coverage_tumour")
    return dict(zip(names, coverage.T, strict=True)) | shares
