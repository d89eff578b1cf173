"""The ``calibrate`` stage: temperatures and the decision threshold, fitted on the validation split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_curve
from sklearn.model_selection import GroupKFold

from slicewise.config import REGIONS, CalibrateConfig, ModelConfig
from slicewise.evaluation.outputs import Outputs, collect_outputs
from slicewise.evaluation.reliability import calibration_figures, negative_log_likelihood
from slicewise.files import write_json
from slicewise.inference.bundle import Calibration, Temperature, Threshold
from slicewise.inference.predictor import sigmoid
from slicewise.progress import Update

logger = logging.getLogger(__name__)
FILE = "calibration.json"
LOG_RANGE = (-3.0, 3.0)
MIN_GAIN = 1e-6
Vector = NDArray[np.float32]


def calibrate_stage(
    store: Path,
    split: Path,
    weights: Path,
    model: ModelConfig,
    config: CalibrateConfig,
    out: Path,
    update: Update | None = None,
) -> dict[str, Any]:
    """Fit the calibration on all slices of the validation split and write ``calibration.json`` into ``out``.

    Returns:
        The content of that file: ``calibration`` (what goes into the bundle) and ``validation`` (before, after).

    Raises:
        StoreError: The store or the split cannot be read.
    """
    outputs = collect_outputs(store, split, weights, model, "val", update=update)
    tumour = fit_temperature(outputs.logits, outputs.truth, outputs.groups, config.folds)
    regions = {
        name: fit_temperature(*outputs.pixels[name], config.folds) if name in outputs.pixels else Temperature()
        for name in REGIONS
    }
    before = sigmoid(outputs.logits)
    after = sigmoid(outputs.logits / tumour.temperature)
    threshold = choose_threshold(after, outputs.truth, config)
    result = {
        "calibration": Calibration(tumour=tumour, regions=regions, threshold=threshold).model_dump(mode="json"),
        "validation": _figures(outputs, before, after, config),
    }
    write_json(out / FILE, result)
    logger.info("temperature %.3f (%s), threshold %.3f", tumour.temperature, tumour.reason, threshold.value)
    return result


def _figures(outputs: Outputs, before: Vector, after: Vector, config: CalibrateConfig) -> dict[str, Any]:
    if not len(outputs.truth):
        return {"n": 0}
    return {
        "n": len(outputs.truth),
        "patients": len(set(outputs.groups)),
        "before": calibration_figures(before, outputs.truth, config.n_bins),
        "after": calibration_figures(after, outputs.truth, config.n_bins),
    }


def fit_temperature(logits: Vector, truth: Vector, groups: Sequence[str], folds: int) -> Temperature:
    """Temperature scaling, kept only if it lowers the NLL on patients it was not fitted on.

    Args:
        logits: ``[n]``.
        truth: ``[n]``, 0 or 1.
        groups: The patient group of each value; folds are made of whole groups.
        folds: At most so many.
    """
    n = len(truth)
    n_folds = min(folds, len(set(groups)))
    if n_folds < 2 or len(np.unique(truth)) < 2:
        reason = "too few patients to hold any out" if n_folds < 2 else "validation has one class only"
        return Temperature(reason=f"not fitted: {reason}", n=n)
    held_out = np.zeros(n, dtype=np.float32)
    for fit, hold in GroupKFold(n_folds).split(logits, truth, groups):
        held_out[hold] = sigmoid(logits[hold] / _minimise(logits[fit], truth[fit]))
    before = negative_log_likelihood(sigmoid(logits), truth)
    after = negative_log_likelihood(held_out, truth)
    kept = after < before - MIN_GAIN
    return Temperature(
        temperature=_minimise(logits, truth) if kept else 1.0,
        kept=kept,
        reason=f"held-out NLL {before:.4f} → {after:.4f}: {'kept' if kept else 'did not help, not applied'}",
        n=n,
        nll_before=before,
        nll_after=after,
    )


def _minimise(logits: Vector, truth: Vector) -> float:
    """The temperature of least NLL, searched on its logarithm."""
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(sigmoid(logits / np.float32(np.exp(log_t))), truth),
        bounds=LOG_RANGE,
        method="bounded",
    )
    return float(np.exp(found.x))


def choose_threshold(probability: Vector, truth: Vector, config: CalibrateConfig) -> Threshold:
    """The decision threshold on the calibrated probability.

    ``youden`` maximises sensitivity + specificity - 1 (Youden, 1950); ``sensitivity`` takes the highest
    threshold that still reaches the target.
    """
    if len(np.unique(truth)) < 2:
        return Threshold(value=0.5, rule="default: validation has one class only")
    false_rate, true_rate, thresholds = roc_curve(truth, probability, drop_intermediate=False)
    false_rate, true_rate, thresholds = false_rate[1:], true_rate[1:], thresholds[1:]
    if config.threshold_rule == "sensitivity":
        at = int(np.argmax(true_rate >= config.target_sensitivity))
        rule = f"sensitivity of at least {config.target_sensitivity:g} on validation"
    else:
        at = int(np.argmax(true_rate - false_rate))
        rule = "Youden's index on validation"
    # Half-way to the next lower score: a threshold that equals a score would hang on its last bit.
    below = probability[probability < thresholds[at]]
    value = (float(thresholds[at]) + float(below.max())) / 2 if len(below) else float(thresholds[at])
    return Threshold(value=min(max(value, 0.0), 1.0), rule=rule)
