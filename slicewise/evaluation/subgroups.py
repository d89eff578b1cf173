"""The test figures by source, grade and tumour size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.intervals import Figure
from slicewise.evaluation.ranking import bootstrap_areas
from slicewise.evaluation.segmentation import mean_figure

UNKNOWN = "unknown"
NO_TUMOUR = "no tumour"
GRADES = ("HGG", "LGG", UNKNOWN)
# Fixed edges, in ml of WT in the reference: terciles would move with the test split, and no two runs compare.
SIZES = (("small, < 40 ml", 40.0), ("medium, 40–100 ml", 100.0), ("large, ≥ 100 ml", float("inf")))


def subgroups(records: Sequence[dict[str, Any]], config: EvaluateConfig) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures of each subgroup; those without a study are listed with ``n`` 0 and undefined figures.

    Args:
        records: One per test study: ``patient``, ``source``, ``grade`` (None: unknown), ``tumour_probability``,
            ``tumour_true`` (None: unknown) and the regions' figures.
        config: The section ``evaluate``.

    Returns:
        ``source``, ``grade``, ``size`` → the subgroup's name → ``n`` (studies), ``patients``, and a ``Figure`` of
        ``dice_wt``, ``dice_tc``, ``dice_et``, ``hd95_wt_mm``, ``sensitivity_wt`` and ``roc_auc`` over studies.
    """
    sources = sorted({record["source"] for record in records})
    sizes = [*(name for name, _ in SIZES), NO_TUMOUR, UNKNOWN]
    return {
        "source": _split(records, [record["source"] for record in records], sources, config),
        "grade": _split(records, [record.get("grade") or UNKNOWN for record in records], GRADES, config),
        "size": _split(records, [size_group(record["WT"]) for record in records], sizes, config),
    }


def size_group(region: dict[str, Any]) -> str:
    """The size group of a study by the volume of its reference; a lower edge belongs to the group.

    Args:
        region: The figures of WT.
    """
    if region["empty_reference"]:
        return NO_TUMOUR
    volume = region["reference_ml"]
    if volume is None:
        return UNKNOWN
    return next(name for name, upper in SIZES if volume < upper)


def _split(
    records: Sequence[dict[str, Any]], names: Sequence[str], wanted: Sequence[str], config: EvaluateConfig
) -> dict[str, dict[str, Any]]:
    return {
        name: _figures([record for record, own in zip(records, names, strict=True) if own == name], config)
        for name in wanted
    }


def _figures(records: Sequence[dict[str, Any]], config: EvaluateConfig) -> dict[str, Any]:
    figures = {f"dice_{region.lower()}": mean_figure(records, region, "dice", config) for region in REGIONS}
    figures["hd95_wt_mm"] = mean_figure(records, "WT", "hd95_mm", config)
    figures["sensitivity_wt"] = mean_figure(records, "WT", "sensitivity", config)
    figures["roc_auc"] = _roc_auc(records, config)
    counts = {"n": len(records), "patients": len({record["patient"] for record in records})}
    return counts | {name: figure.model_dump() for name, figure in figures.items()}


def _roc_auc(records: Sequence[dict[str, Any]], config: EvaluateConfig) -> Figure:
    """ROC-AUC of the studies' tumour probability; undefined with one class."""
    judged = [record for record in records if record.get("tumour_true") is not None]
    judged = [record for record in judged if record.get("tumour_probability") is not None]
    truth = np.array([record["tumour_true"] for record in judged], dtype=np.float64)
    probability = np.array([record["tumour_probability"] for record in judged], dtype=np.float64)
    patients = [record["patient"] for record in judged]
    return bootstrap_areas(probability, truth, patients, config)["roc_auc"]
