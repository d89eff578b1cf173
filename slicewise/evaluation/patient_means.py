"""Means over patients, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slicewise.config import EvaluateConfig
from slicewise.evaluation.group_sums import Sums, bootstrap_sums
from slicewise.evaluation.intervals import Figure


def mean_over_patients(values: Sequence[float | None], groups: Sequence[str], config: EvaluateConfig) -> Figure:
    """Mean over patients; a patient's own values are averaged first, so that many slices or studies weigh no more.

    Args:
        values: ``[n]``; None, where the figure is undefined, is left out.
        groups: The patient group of each.
        config: The section ``evaluate``.
    """
    of_patient: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        if value is not None:
            of_patient.setdefault(group, []).append(value)
    if not of_patient:
        return Figure(value=None)
    means = np.array([[np.mean(of_patient[name]), 1.0] for name in sorted(of_patient)])
    return bootstrap_sums(means, _mean, config.bootstrap, config.confidence)["mean"]


def _mean(totals: Sums) -> Mapping[str, Sums]:
    return {"mean": totals[:, 0] / totals[:, 1]}
