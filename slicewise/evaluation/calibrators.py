"""Fit each calibration method to logits and their truth.

Temperature, Platt and beta are one problem: logistic regression on functions of the logit, with coefficients bounded
so that the map never falls. scikit-learn's has no bounds, so it is solved by SciPy's L-BFGS-B; it is convex, and the
tests compare it with scikit-learn's where no bound is met. Isotonic regression is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import (
    BetaMap,
    IdentityMap,
    IsotonicMap,
    Method,
    PlattMap,
    TemperatureMap,
)
from slicewise.inference.calibration_maps import CalibrationMap, softplus

Floats = NDArray[np.float64]
# Temperatures from 0.05 to 20: outside, the logits say nothing, or the classes are separated and none is best.
TEMPERATURE_BOUNDS = (float(np.exp(-3)), float(np.exp(3)))
MIN_SLOPE = 1e-3


def fit_map(method: Method, scored: Scored) -> CalibrationMap | None:
    """Fit one method by least weighted negative log-likelihood.

    Args:
        method: Which.
        scored: Finite logits with their truth.

    Returns:
        The map; None where the values do not allow one: one class only, or logits that fall as tumour rises.
    """
    if method != "identity" and len(np.unique(scored.truth)) < 2:
        return None
    return _FITS[method](scored)


def _temperature(scored: Scored) -> TemperatureMap:
    low, high = 1 / TEMPERATURE_BOUNDS[1], 1 / TEMPERATURE_BOUNDS[0]
    z = scored.logits.astype(np.float64)
    (slope,) = _logistic([z], _smoothed(scored), scored.weights, [(low, high)], [1.0])
    return TemperatureMap(temperature=1 / slope)


def _platt(scored: Scored) -> PlattMap | None:
    z = scored.logits.astype(np.float64)
    bounds = [(MIN_SLOPE, None), (None, None)]
    slope, intercept = _logistic([z, np.ones_like(z)], _smoothed(scored), scored.weights, bounds, [1.0, 0.0])
    return PlattMap(slope=slope, intercept=intercept) if slope > MIN_SLOPE else None


def _beta(scored: Scored) -> BetaMap | None:
    z = scored.logits.astype(np.float64)
    features = [-softplus(-z), softplus(z), np.ones_like(z)]
    bounds = [(0.0, None), (0.0, None), (None, None)]
    a, b, c = _logistic(features, _smoothed(scored), scored.weights, bounds, [1.0, 1.0, 0.0])
    return BetaMap(a=a, b=b, c=c) if a + b > MIN_SLOPE else None


def _isotonic(scored: Scored) -> IsotonicMap | None:
    """Knots at the centres of the blocks of equal frequency (centred isotonic regression, Oron and Flournoy, 2017).

    Lines between centres keep the order of the slices within a block. The end blocks, whose frequency is often 0
    or 1, are kept away from both by what one more value of the other class would make of it.
    """
    z, weights = scored.logits.astype(np.float64), scored.weights.astype(np.float64)
    least = 1 / (weights.sum() + 2)
    regression = IsotonicRegression(y_min=least, y_max=1 - least)
    fitted = regression.fit_transform(z, scored.truth, sample_weight=weights)
    levels, block = np.unique(fitted, return_inverse=True)
    if len(levels) < 2:
        return None
    centres = np.bincount(block, weights * z) / np.bincount(block, weights)
    return IsotonicMap(knots=tuple(zip(centres.tolist(), logit(levels).tolist(), strict=True)))


_FITS: Mapping[Method, Callable[[Scored], CalibrationMap | None]] = {
    "identity": lambda scored: IdentityMap(),
    "temperature": _temperature,
    "platt": _platt,
    "beta": _beta,
    "isotonic": _isotonic,
}


def _smoothed(scored: Scored) -> Floats:
    """Targets a little inside 0 and 1 (Platt, 1999), without which separated classes would be called certain."""
    positive = float(scored.weights[scored.truth == 1].sum())
    negative = float(scored.weights[scored.truth == 0].sum())
    return np.where(scored.truth == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))


def _logistic(
    features: Sequence[Floats],
    targets: Floats,
    weights: NDArray[np.float32],
    bounds: Sequence[tuple[float | None, float | None]],
    start: Sequence[float],
) -> list[float]:
    """Coefficients of least weighted cross-entropy within bounds."""
    columns = np.stack(features)
    shares = weights.astype(np.float64) / weights.sum(dtype=np.float64)

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        bent = coefficients @ columns
        value = shares @ (softplus(bent) - targets * bent)
        return float(value), columns @ (shares * (expit(bent) - targets))

    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12})
    return [float(value) for value in found.x]
