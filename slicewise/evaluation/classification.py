"""Classification figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, roc_curve

from slicewise.config import EvaluateConfig
from slicewise.evaluation.group_sums import Sums, add_up, bootstrap_sums
from slicewise.evaluation.intervals import Figure
from slicewise.evaluation.ranking import bootstrap_areas
from slicewise.evaluation.reliability import bin_sums, equal_width, gaps, log_losses

Vector = NDArray[np.float32]
MAX_ROC_POINTS = 200


def classification_report(
    probability: Vector, truth: Vector, groups: Sequence[str], threshold: float, config: EvaluateConfig
) -> dict[str, Any]:
    """Figures with intervals, the confusion matrix and the ROC curve.

    Args:
        probability: ``[n]`` calibrated probability of tumour.
        truth: ``[n]``, 0 or 1.
        groups: The patient group of each.
        threshold: Decision threshold.
        config: The section ``evaluate``.

    Returns:
        ``{"n", "n_positive", "patients", "threshold", "figures", "confusion", "roc"}``; a figure that is undefined
        (one class, no value) has the value None.
    """
    if not len(truth):
        return {"n": 0, "n_positive": 0, "patients": 0, "threshold": threshold, "figures": {}}
    figures = classification_figures(probability, truth, groups, threshold, config)
    return {
        "n": len(truth),
        "n_positive": int(truth.sum()),
        "patients": len(set(groups)),
        "threshold": threshold,
        "figures": {name: figure.model_dump() for name, figure in figures.items()},
        "confusion": confusion_matrix(truth, probability >= threshold, labels=[0, 1]).tolist(),
        "roc": roc_points(probability, truth),
    }


def classification_figures(
    probability: Vector, truth: Vector, groups: Sequence[str], threshold: float, config: EvaluateConfig
) -> dict[str, Figure]:
    """All figures by name, with intervals over patients; arguments as in ``classification_report``."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    said, true = probability >= threshold, truth > 0
    bins = equal_width(probability, config.n_bins)
    table = bin_sums(bins, probability, truth, np.ones(len(truth)), index)
    squares = (probability.astype(np.float64) - truth) ** 2
    columns = [said & true, said & ~true, ~said & true, ~said & ~true, squares, log_losses(probability, truth)]
    sums = add_up(np.stack(columns, axis=1).astype(np.float64), index, len(names))
    sums = np.concatenate([sums, table.reshape(len(names), -1)], axis=1)
    counted = bootstrap_sums(sums, _from_sums, config.bootstrap, config.confidence)
    return counted | bootstrap_areas(probability, truth, groups, config)


def _from_sums(totals: Sums) -> Mapping[str, Sums]:
    """Figures of the confusion matrix and the probabilities; NaN where undefined."""
    tp, fp, fn, tn, squares, logs = totals[:, :6].T
    n = tp + fp + fn + tn
    ece, _ = gaps(totals[:, 6:].reshape(len(totals), -1, 3))
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is undefined, as wanted
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "accuracy": (tp + tn) / n,
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
            "ece": ece,
            "brier": squares / n,
            "nll": logs / n,
        }


def roc_points(probability: Vector, truth: Vector) -> dict[str, list[float]]:
    """The ROC curve, thinned to at most 200 points; empty with one class."""
    if len(np.unique(truth)) < 2:
        return {"fpr": [], "tpr": [], "threshold": []}
    fpr, tpr, thresholds = roc_curve(truth, probability)
    # The first threshold is infinite by definition; JSON has no infinity and no probability exceeds 1.
    thresholds = np.minimum(thresholds, 1.0)
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), MAX_ROC_POINTS)).round().astype(int))
    return {"fpr": fpr[keep].tolist(), "tpr": tpr[keep].tolist(), "threshold": thresholds[keep].tolist()}
