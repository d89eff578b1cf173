"""The decision threshold on the calibrated probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from slicewise.config import CalibrateConfig
from slicewise.inference.calibration import Threshold

Vector = NDArray[np.floating[Any]]


def choose_threshold(probability: Vector, truth: Vector, config: CalibrateConfig) -> Threshold:
    """The decision threshold on the calibrated probability.

    ``youden`` maximises sensitivity + specificity - 1 (Youden, 1950); ``sensitivity`` takes the highest threshold
    that still reaches the target; ``cost`` calls tumour where that has the lower expected cost, which for
    calibrated probabilities is from ``cost_fp / (cost_fp + cost_fn)`` on (Elkan, IJCAI 2001) and needs no data.

    Args:
        probability: ``[n]`` calibrated, of validation slices.
        truth: ``[n]``, 0 or 1.
        config: The section ``calibrate``.
    """
    if config.threshold_rule == "cost":
        value = config.cost_fp / (config.cost_fp + config.cost_fn)
        return Threshold(value=value, rule=f"a miss costs {config.cost_fn:g}, a false alarm {config.cost_fp:g}")
    if len(np.unique(truth)) < 2:
        found = "one class only" if len(truth) else "no slice of known class"
        return Threshold(value=0.5, rule=f"default: validation has {found}")
    false_rate, true_rate, thresholds = (
        values[1:] for values in roc_curve(truth, probability, drop_intermediate=False)
    )
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
