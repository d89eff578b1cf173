"""Differences between two models, against scipy, scikit-learn and the definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from slicewise.evaluation.intervals import Figure
from slicewise.evaluation.paired import delong, holm, independent, paired_means, paired_statistic

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [3, 8, 13])
def test_the_exact_permutation_test_is_scipys(n: int) -> None:
    a, b = RNG.normal(0.8, 0.1, n), RNG.normal(0.85, 0.1, n)
    found = paired_means(a, b)
    theirs = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.p_rank == pytest.approx(stats.wilcoxon(b - a).pvalue)
    assert "exact" in found.method


def test_the_drawn_permutation_test_is_near_scipys() -> None:
    a = RNG.normal(0.8, 0.1, 40)
    b = a + RNG.normal(0.02, 0.06, 40)
    theirs = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20000, rng=1
    )
    assert paired_means(a, b).p == pytest.approx(theirs.pvalue, abs=0.01)


def test_four_patients_by_hand() -> None:
    """Differences 1, 2, 3, -1: of the 16 signs, 6 have a sum of at least 5 or at most -5 (sums are odd)."""
    sums = [
        sum(s * d for s, d in zip(signs, (1, 2, 3, -1), strict=True))
        for signs in itertools.product((1, -1), repeat=4)
    ]
    found = paired_means(np.zeros(4), np.array([1.0, 2, 3, -1]))
    assert sum(abs(value) >= 5 for value in sums) == 6
    assert found.p == pytest.approx(6 / 16)
    assert found.figure.value == pytest.approx(1.25)


def test_the_bootstrap_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    """A skewed difference with the mean 0.05, 200 times: 95 % intervals miss it in about one of twenty."""
    rng = np.random.default_rng(1)
    missed = 0
    for seed in range(200):
        difference = rng.gamma(2.0, 0.05, 30) - 0.05
        figure = paired_means(np.zeros(30), difference, seed=seed).figure
        assert figure.low is not None
        assert figure.high is not None
        missed += not figure.low <= 0.05 <= figure.high
    assert 2 <= missed <= 24


def test_no_difference_is_no_evidence() -> None:
    values = np.array([0.5, 0.7, 0.9])
    found = paired_means(values, values)
    assert (found.figure.value, found.figure.low, found.figure.high) == (0.0, 0.0, 0.0)
    assert (found.p, found.p_rank) == (1.0, 1.0)


def test_few_patients() -> None:
    assert paired_means(np.zeros(0), np.zeros(0)).figure == Figure(value=None, n=0)
    one = paired_means(np.array([0.5]), np.array([0.7]))
    assert (one.figure.low, one.p) == (None, None)
    two = paired_means(np.array([0.5, 0.5]), np.array([0.7, 0.6]))
    assert two.figure.low == pytest.approx(0.1)
    assert two.figure.high == pytest.approx(0.2)


def slow_delong(truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference of the AUCs and its variance by the definition: one kernel value per pair."""

    def kernel(scores: np.ndarray) -> np.ndarray:
        x, y = scores[truth == 1][:, None], scores[truth == 0][None, :]
        return (x > y) + 0.5 * (x == y)

    ka, kb = kernel(a), kernel(b)
    ten = np.cov(np.stack([ka.mean(axis=1), kb.mean(axis=1)]))
    one = np.cov(np.stack([ka.mean(axis=0), kb.mean(axis=0)]))
    covariance = ten / ka.shape[0] + one / ka.shape[1]
    contrast = np.array([-1.0, 1.0])
    return float(kb.mean() - ka.mean()), float(contrast @ covariance @ contrast)


@pytest.mark.parametrize("n", [12, 60, 200])
def test_delong_is_its_definition(n: int) -> None:
    truth = (np.arange(n) % 3 == 0).astype(float)
    a = np.round(truth * 0.8 + RNG.normal(0, 1, n), 1)  # with ties
    b = np.round(truth * 1.2 + 0.5 * a + RNG.normal(0, 1, n), 1)
    found = delong(truth, a, b)
    value, variance = slow_delong(truth, a, b)
    assert found.figure.value == pytest.approx(value)
    assert found.figure.value == pytest.approx(roc_auc_score(truth, b) - roc_auc_score(truth, a))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(value) / np.sqrt(variance)))
    assert found.figure.high is not None
    assert found.figure.high - value == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


def test_delong_and_the_bootstrap_agree() -> None:
    truth = (np.arange(150) % 2).astype(float)
    a = truth + RNG.normal(0, 1.2, 150)
    b = truth + 0.6 * a + RNG.normal(0, 0.8, 150)

    def gain(rows: np.ndarray) -> float | None:
        return roc_auc_score(truth[rows], b[rows]) - roc_auc_score(truth[rows], a[rows])

    one, other = delong(truth, a, b).figure, paired_statistic(gain, 150).figure
    assert one.value == pytest.approx(other.value)
    assert one.low == pytest.approx(other.low, abs=0.02)
    assert one.high == pytest.approx(other.high, abs=0.02)


def test_delong_at_the_edges() -> None:
    scores = np.array([0.1, 0.4, 0.6, 0.9])
    assert delong(np.ones(4), scores, scores).figure.value is None
    same = delong(np.array([0.0, 0, 1, 1]), scores, scores)
    assert (same.figure.value, same.p) == (0.0, 1.0)
    opposite = delong(np.array([0.0, 0, 1, 1]), -scores, scores)
    assert (opposite.figure.value, opposite.figure.low, opposite.p) == (1.0, None, None)
    single = delong(np.array([0.0, 0, 0, 1]), scores, -scores)
    assert (single.figure.value, single.figure.low, single.p) == (-1.0, None, None)


def test_mover_by_hand() -> None:
    """0.8 (0.7–0.86) and 0.9 (0.85–0.93): 0.1 - √(0.05² + 0.06²) and 0.1 + √(0.03² + 0.1²)."""
    found = independent(
        Figure(value=0.8, low=0.7, high=0.86, n=9), Figure(value=0.9, low=0.85, high=0.93, n=7)
    ).figure
    assert found.low == pytest.approx(0.1 - np.sqrt(0.0061))
    assert found.high == pytest.approx(0.1 + np.sqrt(0.0109))
    assert found.n == 7
    assert independent(Figure(value=None), Figure(value=0.9)).figure.value is None
    assert independent(Figure(value=0.8), Figure(value=0.9)).figure.low is None


def test_holm_by_hand() -> None:
    """0.01·3, max(0.03, 0.02·2), max(0.04, 0.5·1)."""
    assert holm([0.02, None, 0.5, 0.01]) == pytest.approx([0.04, None, 0.5, 0.03])
    assert holm([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_never_lowers_and_keeps_the_order(values: list[float | None]) -> None:
    corrected = holm(values)
    pairs = [(p, c) for p, c in zip(values, corrected, strict=True) if p is not None and c is not None]
    assert len(pairs) == sum(p is not None for p in values)
    assert all(p <= c <= 1 for p, c in pairs)
    assert [c for _, c in sorted(pairs)] == sorted(c for _, c in pairs)
