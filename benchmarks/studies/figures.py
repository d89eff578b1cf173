"""Figures of the studies, each with n and a 95 % bootstrap interval over patients, and where they are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from slicewise.config import REGIONS
from slicewise.evaluation.intervals import bootstrap
from slicewise.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "studies"
RESAMPLES, CONFIDENCE = 2000, 0.95


def mean_over_patients(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Patient → its values (averaged first) to the mean over patients."""
    names = sorted(name for name, found in values.items() if len(found))
    means = np.array([np.mean(values[name]) for name in names])

    def statistic(rows: NDArray[np.intp]) -> float | None:
        return float(means[rows].mean()) if len(rows) else None

    return bootstrap(statistic, names, RESAMPLES, CONFIDENCE).model_dump()


def classification_figures(
    logits: NDArray[Any], truth: NDArray[Any], groups: Sequence[str], cuts: NDArray[Any] | float = 0.0
) -> dict[str, Any]:
    """AUC, accuracy, sensitivity and specificity; the threshold is a probability of one half unless told.

    Args:
        logits: ``[N]``.
        truth: ``[N]`` of 0 and 1.
        groups: What is resampled together.
        cuts: The threshold as a logit, one or one for each.
    """
    said, positive = logits > cuts, truth > 0.5

    def auc(rows: NDArray[np.intp]) -> float | None:
        return float(roc_auc_score(truth[rows], logits[rows])) if len(np.unique(truth[rows])) == 2 else None

    def share(of: NDArray[np.bool_], right: NDArray[np.bool_]) -> Any:
        return lambda rows: float(right[rows][of[rows]].mean()) if of[rows].any() else None

    statistics = {
        "auc": auc,
        "accuracy": share(np.ones_like(positive), said == positive),
        "sensitivity": share(positive, said),
        "specificity": share(~positive, ~said),
    }
    return {
        name: bootstrap(statistic, groups, RESAMPLES, CONFIDENCE).model_dump()
        for name, statistic in statistics.items()
    }


def youden_cut(logits: NDArray[Any], truth: NDArray[Any]) -> float:
    """The logit with the greatest sensitivity + specificity, in the middle of its gap.

    Args:
        logits: ``[N]``.
        truth: ``[N]`` of 0 and 1.
    """
    ends = np.unique(logits)
    cuts = np.append((ends[:-1] + ends[1:]) / 2, 0.0)
    gains = [np.mean(logits[truth > 0] > cut) + np.mean(logits[truth == 0] <= cut) for cut in cuts]
    best = cuts[np.isclose(gains, max(gains))]
    return float(best[np.abs(best).argmin()])


def dice(counts: NDArray[np.float64]) -> dict[str, float]:
    """Region → Dice of one study's counts ``[R, 3]``; regions with an empty reference are left out."""
    return {
        name: float(2 * both / (predicted + truth))
        for name, (both, predicted, truth) in zip(REGIONS, counts, strict=True)
        if truth
    }


def pooled(results: Iterable[dict[str, Any]], part: str, keep: Any) -> dict[str, dict[str, list[float]]]:
    """Region → study → its Dice, over the folds; ``slices`` has the Dice of every slice with tumour."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in (*REGIONS, "slices")}
    for result in results:
        judged = result[part]
        for at, study in enumerate(judged["studies"]):
            if not keep(study):
                continue
            for region, value in dice(np.array(judged["counts"][at])).items():
                found[region].setdefault(study, []).append(value)
            found["slices"][study] = judged["slice_dice"][at]
    return found


def save_table(name: str, table: dict[str, Any]) -> None:
    """Write one study's results and show where."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{name}.json", json.loads(json.dumps(table)))
    print(RESULTS / f"{name}.json")
