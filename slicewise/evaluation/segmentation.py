"""Segmentation figures per patient and region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.intervals import bootstrap

MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class StudyCounts:
    """Pixel counts and areas of one study, summed over its slices.

    Attributes:
        key: The study.
        group: Its patient group.
        known: ``[3]`` whether the region's reference is known.
        counts: ``[3, 3]`` per region: intersection, prediction, reference, in pixels of the store.
        volume_ml: ``[3, 2]`` predicted and reference volume in ml; NaN where the spacing is unknown.
    """

    key: str
    group: str
    known: NDArray[np.bool_]
    counts: NDArray[np.float64]
    volume_ml: NDArray[np.float64]


def study_record(study: StudyCounts) -> dict[str, Any]:
    """One study's Dice, IoU and volumes by region; None where a figure is undefined."""
    record: dict[str, Any] = {"study": study.key, "patient": study.group}
    for index, name in enumerate(REGIONS):
        both, predicted, reference = study.counts[index]
        empty = reference == 0
        known = bool(study.known[index])
        record[name] = {
            "known": known,
            "empty_reference": bool(known and empty),
            "dice": float(2 * both / (predicted + reference)) if known and not empty else None,
            "iou": float(both / (predicted + reference - both)) if known and not empty else None,
            "predicted_ml": _finite(study.volume_ml[index, 0]),
            "reference_ml": _finite(study.volume_ml[index, 1]) if known else None,
            "false_positive": bool(known and empty and predicted > 0),
        }
    return record


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def segmentation_report(records: Sequence[dict[str, Any]], config: EvaluateConfig) -> dict[str, Any]:
    """Mean Dice and IoU per region over the studies whose reference is known and not empty, with intervals.

    An empty reference has no Dice: such studies are counted apart, and how many of them got a false-positive
    region is told instead.

    Args:
        records: As ``study_record`` gives.
        config: The section ``evaluate``.
    """
    report: dict[str, Any] = {}
    for name in REGIONS:
        scored = [record for record in records if record[name]["dice"] is not None]
        empty = [record for record in records if record[name]["empty_reference"]]
        report[name] = {
            "dice": _mean(scored, name, "dice", config),
            "iou": _mean(scored, name, "iou", config),
            "n_scored": len(scored),
            "n_unknown": sum(not record[name]["known"] for record in records),
            "n_empty_reference": len(empty),
            "n_false_positive": sum(record[name]["false_positive"] for record in empty),
        }
    return report


def _mean(records: Sequence[dict[str, Any]], region: str, figure: str, config: EvaluateConfig) -> dict[str, Any]:
    """Mean over patients: a patient's studies are averaged first."""
    patients: dict[str, list[float]] = {}
    for record in records:
        patients.setdefault(record["patient"], []).append(record[region][figure])
    names = sorted(patients)
    means = np.array([np.mean(patients[name]) for name in names])

    def statistic(rows: NDArray[np.intp]) -> float | None:
        return float(means[rows].mean()) if len(rows) else None

    return bootstrap(statistic, names, config.bootstrap, config.confidence).model_dump()
