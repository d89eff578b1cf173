"""Segmentation figures per patient and region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.intervals import Figure
from slicewise.evaluation.patient_means import mean_over_patients

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


def segmentation_report(records: Sequence[dict[str, Any]], config: EvaluateConfig) -> dict[str, Any]:
    """The mean of every figure per region over the patients for whom it is defined, with intervals.

    An empty reference has no Dice: such studies are counted apart, and how many of them got a false-positive
    region is told instead.

    Args:
        records: One per study: ``patient``, and per region what ``region_figures`` gives.
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

    Args:
        records: As for ``segmentation_report``.
        region: ``WT``, ``TC`` or ``ET``.
        figure: A key of the region's record; a record without it counts as undefined.
        config: The section ``evaluate``.
    """
    values = [record[region].get(figure) for record in records]
    return mean_over_patients(values, [record["patient"] for record in records], config)
