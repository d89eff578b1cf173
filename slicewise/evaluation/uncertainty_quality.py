"""How good the uncertainty is: of the segmentation per study, of the classification over all slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.intervals import Figure, bootstrap
from slicewise.evaluation.outcomes import Outcomes, count_outcomes
from slicewise.evaluation.patient_means import mean_over_patients
from slicewise.evaluation.qu_brats import THRESHOLDS, qu_brats
from slicewise.evaluation.retention import RETAINED, auroc_of_counts, ideal_curve, retention_curve
from slicewise.inference.uncertainty import Uncertainty

Record = dict[str, Any]
FIGURES = (
    "error_rate",
    "auroc",
    "retention_area",
    "retention_random",
    "retention_ideal",
    "rejection_ratio",
    "dice_auc",
    "ftp_auc",
    "ftn_auc",
    "qu_brats",
)
CURVES = ("error", "random", "ideal", "dice", "ftp", "ftn")
MEASURES = ("predictive_entropy", "mutual_information", "expected_entropy")


@dataclass(frozen=True)
class SliceScores:
    """Uncertainty of the classification output, of the slices whose class is known.

    Attributes:
        uncertainty: ``[n]`` each.
        wrong: ``[n]`` whether the slice was classified wrongly.
        groups: ``[n]`` the patient group of each.
    """

    uncertainty: Uncertainty
    wrong: NDArray[np.bool_]
    groups: Sequence[str]


def uncertainty_of_study(
    uncertainty: NDArray[np.floating[Any]],
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    head: NDArray[np.bool_],
    known: NDArray[np.bool_] | None = None,
) -> Record:
    """Figures and curves of one study, over the voxels of the head.

    Args:
        uncertainty: ``[3, D, H, W]`` of WT, TC, ET, or ``[D, H, W]`` of WT alone: entropy or mutual information in
            nats. Float16 is what counts, and fastest.
        predicted: Of the same shape; nothing outside the head.
        reference: Of the same shape.
        head: ``[D, H, W]``.
        known: Which regions the reference tells; None for all.

    Returns:
        Region → its figures (``FIGURES``, None where undefined) with its ``curves``; None for an unknown region. And
        ``qu_brats``: the mean score of the regions that have one.

    Raises:
        InputError: Uncertainty that is not 0 to ln 2.
    """
    inside = np.flatnonzero(head)
    volumes = [array if array.ndim == 4 else array[None] for array in (uncertainty, predicted, reference)]
    record: Record = {}
    for index, (name, *planes) in enumerate(zip(REGIONS, *volumes, strict=False)):
        told = known is None or bool(known[index])
        record[name] = _of_region(count_outcomes(planes[0], planes[1], planes[2], inside)) if told else None
    scores = [row["qu_brats"] for row in record.values() if row and row["qu_brats"] is not None]
    return record | {"qu_brats": float(np.mean(scores)) if scores else None}


def _of_region(outcomes: Outcomes) -> Record:
    retention = retention_curve(outcomes.wrong, outcomes.right)
    if retention is None:
        return {"voxels": 0, "errors": 0, "curves": {}} | dict.fromkeys(FIGURES)
    scores = qu_brats(outcomes)
    rate = 2 * retention.random
    area = float(auroc_of_counts(outcomes.wrong, outcomes.right))
    straight = tuple(rate * share for share in RETAINED)
    curves = {"error": retention.error, "random": straight, "ideal": ideal_curve(rate)}
    return {
        "voxels": int(outcomes.counts.sum()),
        "errors": int(outcomes.wrong.sum()),
        "error_rate": rate,
        "auroc": None if np.isnan(area) else area,
        "retention_area": retention.area,
        "retention_random": retention.random,
        "retention_ideal": retention.ideal,
        "rejection_ratio": retention.rejection_ratio,
        "dice_auc": scores and scores.dice_auc,
        "ftp_auc": scores and scores.ftp_auc,
        "ftn_auc": scores and scores.ftn_auc,
        "qu_brats": scores and scores.score,
        "curves": curves | ({"dice": scores.dice, "ftp": scores.ftp, "ftn": scores.ftn} if scores else {}),
    }


def without_curves(record: Record) -> Record:
    """A study's figures alone: its curves are many numbers, and the section shows their means."""
    return {
        name: {key: value for key, value in row.items() if key != "curves"} if isinstance(row, dict) else row
        for name, row in record.items()
    }


def uncertainty_section(
    per_study: Sequence[Record], groups: Sequence[str], slices: SliceScores | None, config: EvaluateConfig
) -> Record:
    """The section ``uncertainty`` of ``metrics.json``.

    Args:
        per_study: As ``uncertainty_of_study`` gives.
        groups: The patient group of each study.
        slices: The classification's uncertainty; None when it was not sampled.
        config: The section ``evaluate``.

    Returns:
        ``regions``, ``qu_brats`` (mean over patients of the mean over regions) and ``slices``: means over patients
        with intervals; the curves are means over patients too.
    """
    names = [name for name in REGIONS if any(record.get(name) for record in per_study)]
    score = mean_over_patients([record["qu_brats"] for record in per_study], groups, config)
    return {
        "regions": {
            name: _region_section([record.get(name) for record in per_study], groups, config) for name in names
        },
        "qu_brats": score.model_dump(),
        "slices": None if slices is None else _slice_section(slices, config),
    }


def _region_section(rows: Sequence[Record | None], groups: Sequence[str], config: EvaluateConfig) -> Record:
    told = [(row, group) for row, group in zip(rows, groups, strict=True) if row]
    patients = [group for _, group in told]
    figures = {
        name: mean_over_patients([row[name] for row, _ in told], patients, config).model_dump() for name in FIGURES
    }
    curves = {name: _mean_curve([(row["curves"].get(name), group) for row, group in told]) for name in CURVES}
    return {
        **figures,
        "n_scored": sum(row["qu_brats"] is not None for row, _ in told),
        "n_empty_reference": sum(row["qu_brats"] is None for row, _ in told),
        "n_unknown": len(rows) - len(told),
        "curves": {"retained": RETAINED, "threshold": THRESHOLDS, **curves},
    }


def _mean_curve(curves: Sequence[tuple[Sequence[float] | None, str]]) -> list[float] | None:
    """The mean over patients of their studies' mean curves; None where no study has one."""
    of_patient: dict[str, list[Sequence[float]]] = {}
    for curve, group in curves:
        if curve is not None:
            of_patient.setdefault(group, []).append(curve)
    if not of_patient:
        return None
    mean: list[float] = np.mean([np.mean(values, axis=0) for values in of_patient.values()], axis=0).tolist()
    return mean


def _slice_section(slices: SliceScores, config: EvaluateConfig) -> Record:
    measures = {name: getattr(slices.uncertainty, name) for name in MEASURES}
    means = {name: mean_over_patients(values.tolist(), slices.groups, config) for name, values in measures.items()}
    return {
        "n": len(slices.wrong),
        "n_wrong": int(np.count_nonzero(slices.wrong)),
        "patients": len(set(slices.groups)),
        "mean": {name: figure.model_dump() for name, figure in means.items()},
        "auroc": {name: _slice_auroc(values, slices, config).model_dump() for name, values in measures.items()},
        # Samples that all agree everywhere say that nothing was sampled, not that the network is sure.
        "varies": bool(np.any(slices.uncertainty.mutual_information > 0)),
    }


def _slice_auroc(values: NDArray[np.float32], slices: SliceScores, config: EvaluateConfig) -> Figure:
    """AUROC of the uncertainty against being wrong, with an interval over patients."""
    if not len(values):
        return Figure(value=None)
    levels, level = np.unique(values, return_inverse=True)
    columns = level + len(levels) * slices.wrong

    def statistic(rows: NDArray[np.intp]) -> float | None:
        right, wrong = np.bincount(columns[rows], minlength=2 * len(levels)).reshape(2, -1).astype(np.float64)
        area = float(auroc_of_counts(wrong, right))
        return None if np.isnan(area) else area

    return bootstrap(statistic, slices.groups, config.bootstrap, config.confidence)
