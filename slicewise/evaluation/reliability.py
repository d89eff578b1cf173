"""How well probabilities match frequencies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]
TINY = 1e-7


def negative_log_likelihood(probability: Vector, truth: Vector) -> float:
    """Mean binary NLL in nats; probabilities are kept ``1e-7`` away from 0 and 1."""
    p = np.clip(probability.astype(np.float64), TINY, 1 - TINY)
    return float(-np.mean(truth * np.log(p) + (1 - truth) * np.log1p(-p)))


def brier_score(probability: Vector, truth: Vector) -> float:
    """Mean squared distance of the probability from the outcome (Brier, 1950)."""
    return float(np.mean((probability.astype(np.float64) - truth) ** 2))


def reliability_bins(probability: Vector, truth: Vector, n_bins: int) -> list[dict[str, float]]:
    """Equal-width bins of the probability of tumour: count, mean probability, observed frequency.

    Empty bins are left out.
    """
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    index = np.clip(np.digitize(probability, edges[1:-1]), 0, n_bins - 1)
    bins = []
    for at in range(n_bins):
        inside = index == at
        if inside.any():
            bins.append(
                {
                    "low": float(edges[at]),
                    "high": float(edges[at + 1]),
                    "n": int(inside.sum()),
                    "probability": float(probability[inside].mean()),
                    "frequency": float(truth[inside].mean()),
                }
            )
    return bins


def expected_calibration_error(probability: Vector, truth: Vector, n_bins: int) -> float:
    """Mean gap between probability and frequency over equal-width bins, weighted by count.

    After Naeini et al., AAAI 2015, on the probability of tumour (not on the winning class's confidence).
    """
    bins = reliability_bins(probability, truth, n_bins)
    return float(sum(b["n"] * abs(b["probability"] - b["frequency"]) for b in bins) / len(probability))


def calibration_figures(probability: Vector, truth: Vector, n_bins: int) -> dict[str, Any]:
    """ECE, Brier, NLL and the bins of one set of probabilities."""
    return {
        "n": len(probability),
        "ece": expected_calibration_error(probability, truth, n_bins),
        "brier": brier_score(probability, truth),
        "nll": negative_log_likelihood(probability, truth),
        "bins": reliability_bins(probability, truth, n_bins),
    }
