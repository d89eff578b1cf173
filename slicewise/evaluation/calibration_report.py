"""The section ``calibration_figures`` of ``metrics.json``: probabilities against frequencies, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, CalibrateConfig, EvaluateConfig
from slicewise.evaluation.group_sums import Sums, bootstrap_sums
from slicewise.evaluation.outputs import Outputs
from slicewise.evaluation.reliability import (
    Bins,
    bin_sums,
    brier_parts,
    describe_bins,
    equal_mass,
    equal_width,
    gaps,
    log_losses,
)
from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import Calibration, Calibrator

# Both say how many bins, draws, and what confidence.
Settings = CalibrateConfig | EvaluateConfig
# A region that no study knows.
NO_PIXELS = Scored(
    logits=np.zeros(0, dtype=np.float32),
    truth=np.zeros(0, dtype=np.float32),
    groups=np.zeros(0, dtype=np.intp),
    weights=np.zeros(0, dtype=np.float32),
    foreground=np.zeros(0, dtype=np.bool_),
)
FIGURES = (
    "ece",
    "ece_adaptive",
    "mce",
    "brier",
    "brier_reliability",
    "brier_resolution",
    "brier_uncertainty",
    "brier_within_bins",
    "nll",
)


def calibration_section(
    validation: Mapping[str, Any] | None, test: Outputs, calibration: Calibration, config: EvaluateConfig
) -> dict[str, Any]:
    """Figures of the slices and of each region's pixels, on both sides.

    The validation's figures are of the values that the calibration was fitted on; the test's are the judgement.

    Args:
        validation: Its figures by output, as ``side_figures`` gave them when it was fitted; None leaves them out.
        test: The test side.
        calibration: The bundle's.
        config: The section ``evaluate``.

    Raises:
        TrainingError: Some logit is not finite.
    """
    sides: dict[str, Mapping[str, Any]] = {} if validation is None else {"validation": validation}
    sides["test"] = side_figures(test, calibration, config)
    return {name: {side: figures.get(name) for side, figures in sides.items()} for name in ("tumour", *REGIONS)}


def side_figures(outputs: Outputs, calibration: Calibration, config: Settings) -> dict[str, Any]:
    """Figures before and after of the slices (``tumour``) and of each region's pixels, on one side.

    Raises:
        TrainingError: Some logit is not finite.
    """
    parts = {"tumour": (outputs.slices, calibration.tumour)}
    for name in REGIONS:
        parts[name] = (outputs.pixels.get(name, NO_PIXELS), calibration.regions[name])
    for name, (scored, _) in parts.items():
        scored.require_finite(name)
    return {name: before_and_after(scored, calibrator, config) for name, (scored, calibrator) in parts.items()}


def before_and_after(scored: Scored, calibrator: Calibrator, config: Settings) -> dict[str, Any]:
    """Figures with the raw and with the calibrated probabilities; of pixels, those of the foreground too.

    Args:
        scored: Values of one output.
        calibrator: Its calibration.
        config: The section ``evaluate``.
    """
    found = _pair(scored, calibrator, config)
    if scored.foreground is None:
        return found
    inside = _pair(scored.take(scored.foreground), calibrator, config)
    return found | {f"foreground_{when}": figures for when, figures in inside.items()}


def _pair(scored: Scored, calibrator: Calibrator, config: Settings) -> dict[str, Any]:
    return {
        "before": summarise(scored, Calibrator().apply(scored.logits), config),
        "after": summarise(scored, calibrator.apply(scored.logits), config),
    }


def summarise(scored: Scored, probability: NDArray[np.float32], config: Settings) -> dict[str, Any]:
    """All figures of one set of probabilities, with intervals over patients.

    Bins are made once, of all values: an interval tells what other patients would give in the same bins.

    Args:
        scored: Truth, patients and weights.
        probability: ``[n]``.
        config: The section ``evaluate``.

    Returns:
        ``{"n", "patients", "figures", "bins", "adaptive_bins"}``; figures are None where there is no value.
    """
    names, groups = np.unique(scored.groups, return_inverse=True)
    wide = equal_width(probability, config.n_bins)
    even = equal_mass(probability, scored.weights, config.n_bins)
    tables = [bin_sums(bins, probability, scored.truth, scored.weights, groups) for bins in (wide, even)]
    losses = [
        np.bincount(groups, scored.weights * values, minlength=len(names))
        for values in ((probability.astype(np.float64) - scored.truth) ** 2, log_losses(probability, scored.truth))
    ]
    flat = [table.reshape(len(names), 3 * table.shape[1]) for table in tables]
    sums = np.concatenate([*flat, np.stack(losses, axis=1)], axis=1)
    figures = bootstrap_sums(sums, _Figures(wide, even), config.bootstrap, config.confidence)
    return {
        "n": len(scored),
        "patients": len(names),
        "figures": {name: figure.model_dump() for name, figure in figures.items()},
        "bins": describe_bins(wide, tables[0].sum(axis=0)),
        "adaptive_bins": describe_bins(even, tables[1].sum(axis=0)),
    }


class _Figures:
    """All figures from totals: bin sums of both kinds of bins, squared errors and log losses."""

    def __init__(self, wide: Bins, even: Bins) -> None:
        self._wide, self._even = wide.count, even.count

    def __call__(self, totals: Sums) -> Mapping[str, Sums]:
        wide, even, squares, logs = np.split(totals, np.cumsum([3 * self._wide, 3 * self._even, 1]), axis=1)
        table = wide.reshape(len(totals), self._wide, 3)
        weight = table[..., 0].sum(axis=1)
        ece, mce = gaps(table)
        adaptive, _ = gaps(even.reshape(len(totals), self._even, 3))
        parts = brier_parts(table)
        with np.errstate(invalid="ignore"):  # 0 / 0 is undefined, as wanted
            brier, nll = squares[:, 0] / weight, logs[:, 0] / weight
        within = brier - (parts[0] - parts[1] + parts[2])
        return dict(zip(FIGURES, (ece, adaptive, mce, brier, *parts, within, nll), strict=True))
