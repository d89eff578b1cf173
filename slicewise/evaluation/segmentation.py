"""Segmentation figures per patient and region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.intervals import Figure, bootstrap
from slicewise.inference.components3d import MM3_PER_ML as MM3_PER_ML

FIGURES = (
    "dice",
    "iou",
    "hd95_mm",
    "assd_mm",
    "volume_error_ml",
    "volume_abs_error_ml",
    "sensitivity",
    "specificity",
    "lesion_dice",
    "lesion_hd95_mm",
)
LESION_COUNTS = ("reference", "ignored", "predicted", "true_positive", "false_negative", "false_positive")


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
    """The mean of every figure per region over the patients for whom it is defined, with intervals.

    An empty reference has no Dice: such studies are counted apart, and how many of them got a false-positive
    region is told instead.

    Args:
        records: One per study: ``patient``, and per region what ``region_figures`` (or ``study_record``) gives.
        config: The section ``evaluate``.

    Returns:
        Per region a ``Figure`` of each of ``FIGURES``, ``n_scored``, ``n_unknown``, ``n_empty_reference``,
        ``n_false_positive``, and ``lesions``: counts over all studies with their F1.
    """
    return {name: _region_report(records, name, config) for name in REGIONS}


def _region_report(records: Sequence[dict[str, Any]], region: str, config: EvaluateConfig) -> dict[str, Any]:
    empty = [record for record in records if record[region]["empty_reference"]]
    return {
        **{figure: mean_figure(records, region, figure, config).model_dump() for figure in FIGURES},
        "n_scored": sum(record[region]["dice"] is not None for record in records),
        "n_unknown": sum(not record[region]["known"] for record in records),
        "n_empty_reference": len(empty),
        "n_false_positive": sum(record[region]["false_positive"] for record in empty),
        "lesions": _lesion_counts([record[region].get("lesions") for record in records]),
    }


def _lesion_counts(found: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Counts over all studies and the F1 of their sums; an F1 without any lesion is undefined."""
    total = {name: sum(counts[name] for counts in found if counts) for name in LESION_COUNTS}
    asked = 2 * total["true_positive"] + total["false_negative"] + total["false_positive"]
    return {**total, "f1": 2 * total["true_positive"] / asked if asked else None}


def mean_figure(records: Sequence[dict[str, Any]], region: str, figure: str, config: EvaluateConfig) -> Figure:
    """Mean of one figure over patients, with its interval; undefined values are left out.

    A patient's studies are averaged first.

    Args:
        records: As for ``segmentation_report``.
        region: ``WT``, ``TC`` or ``ET``.
        figure: A key of the region's record; a record without it counts as undefined.
        config: The section ``evaluate``.
    """
    patients: dict[str, list[float]] = {}
    for record in records:
        value = record[region].get(figure)
        if value is not None:
            patients.setdefault(record["patient"], []).append(value)
    names = sorted(patients)
    means = np.array([np.mean(patients[name]) for name in names])

    def statistic(rows: NDArray[np.intp]) -> float | None:
        return float(means[rows].mean()) if len(rows) else None

    return bootstrap(statistic, names, config.bootstrap, config.confidence)
