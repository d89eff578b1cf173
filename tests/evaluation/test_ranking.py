"""Areas under curves by weights, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from slicewise.config import EvaluateConfig
from slicewise.evaluation.classification import classification_figures
from slicewise.evaluation.group_sums import draw_counts
from slicewise.evaluation.intervals import bootstrap
from slicewise.evaluation.ranking import Ranking


def sample(n: int, seed: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, with more ties the fewer decimals, and outcomes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.4).astype(np.float32)
    return np.clip(np.round(0.3 * truth + rng.random(n) * 0.7, decimals), 0, 1).astype(np.float32), truth


@pytest.mark.parametrize("decimals", [1, 2, 6])
@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_scikit_learns_with_any_weights(seed: int, decimals: int) -> None:
    score, truth = sample(200, seed, decimals)
    weights = np.random.default_rng(seed).integers(0, 4, (5, 200)).astype(np.float64)
    areas = Ranking(score, truth).areas(weights)
    for draw, weight in enumerate(weights):
        assert areas["roc_auc"][draw] == pytest.approx(roc_auc_score(truth, score, sample_weight=weight))
        assert areas["pr_auc"][draw] == pytest.approx(average_precision_score(truth, score, sample_weight=weight))


def test_a_hand_worked_curve() -> None:
    """Positives at 0.9 and 0.4, negatives at 0.6 and 0.4: pairs won 2, tied 1, lost 1 of 4."""
    score, truth = np.array([0.9, 0.4, 0.6, 0.4]), np.array([1, 1, 0, 0])
    areas = Ranking(score, truth).areas(np.ones((1, 4)))
    assert areas["roc_auc"][0] == pytest.approx(2.5 / 4)
    # Precision 1 at the first positive, 2 of 4 where all are taken.
    assert areas["pr_auc"][0] == pytest.approx(0.5 * 1 + 0.5 * 0.5)


@pytest.mark.parametrize("truth", [[1, 1], [0, 0], []])
def test_a_missing_class_is_undefined(truth: list[int]) -> None:
    areas = Ranking(np.linspace(0, 1, len(truth)), np.array(truth)).areas(np.ones((3, len(truth))))
    assert np.isnan(areas["roc_auc"]).all()
    assert np.isnan(areas["pr_auc"]).all()


def test_figures_and_intervals_equal_the_slow_bootstraps() -> None:
    score, truth = sample(120, 5, 3)
    groups = [f"p{at % 9}" for at in range(120)]
    config = EvaluateConfig(bootstrap=100)
    found = classification_figures(score, truth, groups, 0.45, config)
    slow = {
        "roc_auc": lambda rows: roc_auc_score(truth[rows], score[rows]),
        "pr_auc": lambda rows: average_precision_score(truth[rows], score[rows]),
        "f1": lambda rows: f1_score(truth[rows], score[rows] >= 0.45),
        "mcc": lambda rows: matthews_corrcoef(truth[rows], score[rows] >= 0.45),
        "balanced_accuracy": lambda rows: balanced_accuracy_score(truth[rows], score[rows] >= 0.45),
    }
    for name, statistic in slow.items():
        expected = bootstrap(statistic, groups, 100, 0.95)
        assert found[name].value == pytest.approx(expected.value)
        assert (found[name].low, found[name].high) == pytest.approx((expected.low, expected.high)), name
        assert found[name].n == 9


def test_draws_are_the_same_as_the_slow_bootstraps() -> None:
    rng = np.random.default_rng(0)
    first = np.bincount(rng.integers(0, 9, 9), minlength=9)
    assert np.array_equal(draw_counts(9, 1)[0], first)
