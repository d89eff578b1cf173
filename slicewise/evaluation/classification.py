"""Classification figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from slicewise.config import EvaluateConfig
from slicewise.evaluation.intervals import Figure, bootstrap
from slicewise.evaluation.reliability import brier_score, expected_calibration_error, negative_log_likelihood

Vector = NDArray[np.float32]
MAX_ROC_POINTS = 200


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def point_figures(probability: Vector, truth: Vector, threshold: float, n_bins: int) -> dict[str, float | None]:
    """All figures of one set of predictions; None where a figure is undefined.

    Args:
        probability: ``[n]`` calibrated probability of tumour.
        truth: ``[n]``, 0 or 1.
        threshold: Decision threshold.
        n_bins: Bins of the ECE.
    """
    (tn, fp), (fn, tp) = confusion_matrix(truth, probability >= threshold, labels=[0, 1])
    both = len(np.unique(truth)) == 2
    return {
        "accuracy": _ratio(tp + tn, len(truth)),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "roc_auc": float(roc_auc_score(truth, probability)) if both else None,
        "pr_auc": float(average_precision_score(truth, probability)) if both else None,
        "ece": expected_calibration_error(probability, truth, n_bins),
        "brier": brier_score(probability, truth),
        "nll": negative_log_likelihood(probability, truth),
    }


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
    """
    if not len(truth):
        return {"n": 0, "n_positive": 0, "threshold": threshold, "figures": {}}
    names = point_figures(probability, truth, threshold, config.n_bins)
    figures = _with_intervals(list(names), probability, truth, groups, threshold, config)
    return {
        "n": len(truth),
        "n_positive": int(truth.sum()),
        "patients": len(set(groups)),
        "threshold": threshold,
        "figures": {name: figure.model_dump() for name, figure in figures.items()},
        "confusion": confusion_matrix(truth, probability >= threshold, labels=[0, 1]).tolist(),
        "roc": roc_points(probability, truth),
    }


def _with_intervals(
    names: Sequence[str],
    probability: Vector,
    truth: Vector,
    groups: Sequence[str],
    threshold: float,
    config: EvaluateConfig,
) -> dict[str, Figure]:
    """One bootstrap for all figures: the same draws serve each of them."""
    cache: dict[bytes, dict[str, float | None]] = {}

    def figure(name: str) -> Callable[[NDArray[np.intp]], float | None]:
        def statistic(rows: NDArray[np.intp]) -> float | None:
            key = rows.tobytes()
            if key not in cache:
                cache[key] = point_figures(probability[rows], truth[rows], threshold, config.n_bins)
            return cache[key][name]

        return statistic

    return {name: bootstrap(figure(name), groups, config.bootstrap, config.confidence) for name in names}


def roc_points(probability: Vector, truth: Vector) -> dict[str, list[float]]:
    """The ROC curve, thinned to at most 200 points; empty with one class."""
    if len(np.unique(truth)) < 2:
        return {"fpr": [], "tpr": [], "threshold": []}
    fpr, tpr, thresholds = roc_curve(truth, probability)
    # The first threshold is infinite by definition; JSON has no infinity and no probability exceeds 1.
    thresholds = np.minimum(thresholds, 1.0)
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), MAX_ROC_POINTS)).round().astype(int))
    return {"fpr": fpr[keep].tolist(), "tpr": tpr[keep].tolist(), "threshold": thresholds[keep].tolist()}
