"""The figures in which two runs are compared, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.config.metric_names import full_path, label_of
from slicewise.evaluation.intervals import Figure
from slicewise.evaluation.paired import (
    Difference,
    auc_figure,
    delong,
    independent,
    mean_interval,
    paired_means,
    paired_statistic,
)
from slicewise.evaluation.reliability import expected_calibration_error

Metrics = Mapping[str, Any]
Better = Literal["higher", "lower"]
PER_REGION: tuple[tuple[str, str, str, Better], ...] = (
    ("dice", "dice", "", "higher"),
    ("hd95", "hd95_mm", "mm", "lower"),
    ("volume_abs_error", "volume_abs_error_ml", "ml", "lower"),
    ("lesion_dice", "lesion_dice", "", "higher"),
)
# There is no record per slice in metrics.json, so that these can be compared by their intervals only.
BY_INTERVAL: tuple[tuple[str, Better], ...] = (
    ("roc_auc", "higher"),
    ("sensitivity", "higher"),
    ("specificity", "higher"),
    ("ece", "lower"),
)
PATIENT_FIGURES: tuple[tuple[str, Better], ...] = (
    ("patient_roc_auc", "higher"),
    ("patient_accuracy", "higher"),
    ("patient_brier", "lower"),
    ("patient_ece", "lower"),
)
BINS = 10


@dataclass(frozen=True)
class Row:
    """One figure of both runs.

    Attributes:
        metric: Its short name.
        unit: ``mm``, ``ml`` or nothing.
        better: Which way is better.
        a: Run A's figure, over the patients that are compared.
        b: Run B's.
        difference: B minus A.
        left_out: Patients that have the figure in one run only.
    """

    metric: str
    unit: str
    better: Better
    a: Figure
    b: Figure
    difference: Difference
    left_out: int = 0

    @property
    def label(self) -> str:
        """Its name for people."""
        return label_of(self.metric)


class Patients:
    """What ``metrics.json`` tells of each test patient; a patient's studies are put together.

    Attributes:
        threshold: The decision threshold.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.threshold = float(metrics["classification"]["patient"].get("threshold", 0.5))
        self._studies: dict[str, list[Mapping[str, Any]]] = {}
        for record in metrics["studies"]:
            self._studies.setdefault(record["patient"], []).append(record)

    @property
    def names(self) -> list[str]:
        """The patients, sorted."""
        return sorted(self._studies)

    def studies(self, name: str) -> list[Mapping[str, Any]]:
        """A patient's studies."""
        return self._studies[name]

    def mean(self, name: str, region: str, key: str) -> float | None:
        """A region's figure, averaged over the patient's studies; None where it is undefined in all."""
        values = [record[region].get(key) for record in self._studies[name] if record.get(region)]
        defined = [float(value) for value in values if value is not None]
        return sum(defined) / len(defined) if defined else None

    def probability(self, name: str) -> tuple[float, float] | None:
        """The highest tumour probability, and whether any study shows tumour (1 or 0); None where unknown."""
        records = self._studies[name]
        if any(record.get("tumour_probability") is None or record.get("tumour_true") is None for record in records):
            return None
        truth = max(bool(record["tumour_true"]) for record in records)
        return max(float(record["tumour_probability"]) for record in records), float(truth)


def paired_rows(a: Metrics, b: Metrics, shared: Sequence[str], confidence: float) -> list[Row]:
    """Rows for runs that share test patients."""
    one, other = Patients(a), Patients(b)
    rows = [
        _mean_row(f"{short}_{region.lower()}", unit, better, *_pairs(one, other, shared, region, key), confidence)
        for short, key, unit, better in PER_REGION
        for region in REGIONS
    ]
    rows += _probability_rows(one, other, shared, confidence)
    rows += [_interval_row(metric, better, a, b) for metric, better in BY_INTERVAL]
    return [row for row in rows if row.a.value is not None or row.b.value is not None]


def unpaired_rows(a: Metrics, b: Metrics) -> list[Row]:
    """Rows for runs on different patients, from their intervals."""
    regional = [
        (f"{short}_{region.lower()}", unit, better) for short, _, unit, better in PER_REGION for region in REGIONS
    ]
    plain = [(metric, "", better) for metric, better in (*PATIENT_FIGURES, *BY_INTERVAL)]
    rows = [_interval_row(metric, better, a, b, unit) for metric, unit, better in regional + plain]
    return [row for row in rows if row.a.value is not None or row.b.value is not None]


def figure_at(metrics: Metrics, metric: str) -> Figure:
    """An aggregated figure by its short name or path; undefined where it is missing."""
    found: Any = metrics
    for part in full_path(metric).split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return Figure.model_validate(found) if isinstance(found, Mapping) and "value" in found else Figure(value=None)


def _pairs(
    one: Patients, other: Patients, shared: Sequence[str], region: str, key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Both runs' values of the patients who have the figure in both, and how many have it in one only."""
    values = [(one.mean(name, region, key), other.mean(name, region, key)) for name in shared]
    both = [(x, y) for x, y in values if x is not None and y is not None]
    left_out = sum((x is None) != (y is None) for x, y in values)
    array = np.array(both, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1], left_out


def _mean_row(
    metric: str,
    unit: str,
    better: Better,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    left_out: int,
    confidence: float,
) -> Row:
    return Row(
        metric=metric,
        unit=unit,
        better=better,
        a=_mean_figure(a, confidence),
        b=_mean_figure(b, confidence),
        difference=paired_means(a, b, confidence),
        left_out=left_out,
    )


def _mean_figure(values: NDArray[np.float64], confidence: float) -> Figure:
    n = len(values)
    if n < 2:
        return Figure(value=float(values[0]) if n else None, n=n)
    low, high, _ = mean_interval(values, confidence)
    return Figure(value=float(values.mean()), low=low, high=high, n=n)


def _probability_rows(one: Patients, other: Patients, shared: Sequence[str], confidence: float) -> list[Row]:
    """Classification of patients: discrimination, decisions at each run's own threshold, calibration."""
    pairs = [(one.probability(name), other.probability(name)) for name in shared]
    known = [(x[0], y[0], x[1]) for x, y in pairs if x is not None and y is not None and x[1] == y[1]]
    a, b, truth = np.array(known, dtype=np.float64).reshape(-1, 3).T
    right = [((p >= patients.threshold) == (truth > 0.5)).astype(float) for p, patients in ((a, one), (b, other))]
    left_out = len(shared) - len(known)
    return [
        _auc_row(truth, a, b, left_out, confidence),
        _mean_row("patient_accuracy", "", "higher", right[0], right[1], left_out, confidence),
        _mean_row("patient_brier", "", "lower", (a - truth) ** 2, (b - truth) ** 2, left_out, confidence),
        _ece_row(truth, a, b, left_out, confidence),
    ]


def _auc_row(
    truth: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], left_out: int, confidence: float
) -> Row:
    of_a, of_b = (auc_figure(truth, scores, confidence) for scores in (a, b))
    return Row("patient_roc_auc", "", "higher", of_a, of_b, delong(truth, a, b, confidence), left_out)


def _ece_row(
    truth: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], left_out: int, confidence: float
) -> Row:
    def ece(scores: NDArray[np.float64], rows: NDArray[np.intp]) -> float:
        return expected_calibration_error(scores[rows], truth[rows], BINS)

    n = len(truth)
    figures = [paired_statistic(lambda rows, p=p: ece(p, rows), n, confidence).figure for p in (a, b)]  # type: ignore[misc]
    difference = paired_statistic(lambda rows: ece(b, rows) - ece(a, rows), n, confidence)
    return Row("patient_ece", "", "lower", figures[0], figures[1], difference, left_out)


def _interval_row(metric: str, better: Better, a: Metrics, b: Metrics, unit: str = "") -> Row:
    one, other = figure_at(a, metric), figure_at(b, metric)
    return Row(metric, unit, better, one, other, independent(one, other))
