"""Areas under the ROC and the precision-recall curve for many sets of weights at once.

A bootstrap over patients gives each slice the weight of how often its patient was drawn. Sorted once, a thousand
draws are sums along one axis; sorting each draw again takes some hundred times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import EvaluateConfig
from slicewise.evaluation.group_sums import draw_counts, summarise_draws
from slicewise.evaluation.intervals import Figure

Weights = NDArray[np.float64]
DRAWS_AT_ONCE = 100


class Ranking:
    """Scores in order, ties together.

    Args:
        score: ``[n]``; higher speaks for the class.
        truth: ``[n]``, 0 or 1.
    """

    def __init__(self, score: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]]) -> None:
        self._order = np.argsort(-score, kind="stable")
        ranked = score[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else None
        self._truth = truth[self._order] > 0

    def areas(self, weights: Weights) -> dict[str, Weights]:
        """ROC-AUC and average precision.

        Args:
            weights: ``[draws, n]``, 0 or more.

        Returns:
            ``roc_auc`` (ties count half, as in the Mann-Whitney statistic) and ``pr_auc`` (average precision, without
            interpolation), ``[draws]`` each; NaN where a class is missing.
        """
        if self._starts is None:
            nothing = np.full(len(weights), np.nan)
            return {"roc_auc": nothing, "pr_auc": nothing}
        ordered = weights[:, self._order]
        positive = np.add.reduceat(ordered * self._truth, self._starts, axis=1)
        negative = np.add.reduceat(ordered * ~self._truth, self._starts, axis=1)
        true, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        positives, negatives = true[:, -1], false[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):  # a missing class is undefined, as wanted
            beaten = negatives[:, None] - false + negative / 2
            auc = (positive * beaten).sum(axis=1) / (positives * negatives)
            precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
            average = (positive * precision).sum(axis=1) / positives
        undefined = (positives == 0) | (negatives == 0)
        return {"roc_auc": np.where(undefined, np.nan, auc), "pr_auc": np.where(undefined, np.nan, average)}


def bootstrap_areas(
    score: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]],
    groups: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, Figure]:
    """ROC-AUC and average precision with intervals over patients.

    Draws are made a hundred at a time, so that memory does not grow with them.

    Args:
        score: ``[n]``; higher speaks for the class.
        truth: ``[n]``, 0 or 1.
        groups: The patient group of each.
        config: The section ``evaluate``.
    """
    names, index = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    ranking = Ranking(score, truth)
    whole = ranking.areas(np.ones((1, len(index))))
    drawn: dict[str, list[Weights]] = {name: [] for name in whole}
    if len(names) >= 2:
        counts = draw_counts(len(names), config.bootstrap)
        for start in range(0, len(counts), DRAWS_AT_ONCE):
            for name, areas in ranking.areas(counts[start : start + DRAWS_AT_ONCE][:, index]).items():
                drawn[name].append(areas)
    return {
        name: summarise_draws(
            float(value[0]), np.concatenate(drawn[name]) if drawn[name] else None, config.confidence, len(names)
        )
        for name, value in whole.items()
    }
