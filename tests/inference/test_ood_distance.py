"""Normal scores, Mahalanobis distances and conformal p-values, against scipy, scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from slicewise.evaluation.ood import alarm_threshold
from slicewise.evaluation.ood_fit import fit_gaussian, whitening
from slicewise.inference.ood_distance import (
    LEVELS,
    RANKS,
    Gaussian,
    Reference,
    log_p_values,
    normal_scores,
    training_quantiles,
)


def test_normal_scores_are_the_normal_quantile_of_the_rank() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 1, (4000, 2))
    scores = normal_scores(values, training_quantiles(values))
    expected = stats.norm.ppf((stats.rankdata(values, axis=0) - 0.5) / len(values))
    middle = np.abs(expected) < 2.3
    np.testing.assert_allclose(scores[middle], expected[middle], atol=0.06)
    assert stats.kstest(scores[:, 0], "norm").pvalue > 0.5


def test_beyond_the_training_values_scores_go_on_in_a_straight_line() -> None:
    """Knots at twice the levels: the scale is 2, so a value of 4.8 + 2 lies one further than the end, 2.4."""
    knots = (2 * LEVELS)[None]
    values = np.array([[4.8], [6.8], [-6.8], [1.0], [1e9], [-1e9]])
    assert normal_scores(values, knots)[:, 0].tolist() == pytest.approx([2.4, 3.4, -3.4, 0.5, 20, -20])


def test_equal_training_values_share_the_middle_of_their_ranks() -> None:
    values = np.r_[np.zeros(500), np.ones(500)][:, None]
    low, high, beyond = normal_scores(np.array([[0.0], [1.0], [3.0]]), training_quantiles(values))[:, 0]
    assert low == pytest.approx(-1.2, abs=0.1)
    assert high == pytest.approx(1.2, abs=0.1)
    assert beyond > 2.4
    constant = training_quantiles(np.full((50, 1), 5.0))
    same, other = normal_scores(np.array([[5.0], [5.5]]), constant)[:, 0]
    assert same == 0
    assert other == 20


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=40), st.floats(-1e4, 1e4), st.floats(0, 1e3))
def test_normal_scores_never_fall(training: list[float], value: float, step: float) -> None:
    knots = training_quantiles(np.array(training)[:, None])
    low, high = normal_scores(np.array([[value], [value + step]]), knots)[:, 0]
    assert np.isfinite(low)
    assert low <= high + 1e-9


def test_mahalanobis_by_hand() -> None:
    """Precision [[2, 0], [0, 0.5]] and centre (1, -1): of (2, 1) it is (2·1² + 0.5·2²) / 2 dimensions = 2."""
    gaussian = Gaussian(np.tile(LEVELS, (2, 1)), np.array([[1.0, -1.0]]), np.diag(np.sqrt([2.0, 0.5])))
    assert gaussian.distance(np.array([[2.0, 1.0]])).tolist() == pytest.approx([np.log(2)])
    assert gaussian.distance(np.array([[1.0, -1.0]]))[0] < np.log(1e-9)


def test_distance_against_scipy_and_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    values = rng.multivariate_normal([0, 3, -2], [[2, 1, 0], [1, 3, 1], [0, 1, 1]], 400)
    gaussian = fit_gaussian(values)
    scores = normal_scores(values, gaussian.knots)
    model = LedoitWolf().fit(scores)
    expected = model.mahalanobis(scores) / 3
    np.testing.assert_allclose(gaussian.distance(values), np.log(expected), atol=1e-6)
    far = normal_scores(np.array([[9.0, -9.0, 9.0]]), gaussian.knots)
    by_scipy = mahalanobis(far[0], model.location_, model.precision_) ** 2 / 3
    assert gaussian.distance(np.array([[9.0, -9.0, 9.0]]))[0] == pytest.approx(np.log(by_scipy))


def test_each_group_is_measured_from_its_own_centre() -> None:
    rng = np.random.default_rng(2)
    values = np.r_[rng.normal(-3, 1, (300, 2)), rng.normal(3, 1, (300, 2)), rng.normal(0, 1, (3, 2))]
    groups = np.repeat([0, 1, 2], [300, 300, 3])
    gaussian = fit_gaussian(values, groups, 4)
    at = np.array([[3.0, 3.0]])
    assert gaussian.distance(at, np.array([1]))[0] + 2 < gaussian.distance(at, np.array([0]))[0]
    everything = normal_scores(values, gaussian.knots).mean(axis=0)
    np.testing.assert_allclose(gaussian.centres[2], everything)  # too few slices for a centre of its own
    np.testing.assert_allclose(gaussian.centres[3], everything)


@pytest.mark.parametrize("n", [2, 5, 50, 400])
def test_whitening_of_few_and_of_many(n: int) -> None:
    residuals = np.random.default_rng(3).normal(0, [[3.0, 1.0, 0.0, 0.5]], (n, 4))
    whiten = whitening(residuals)
    assert whiten.shape == (4, 4)
    assert np.isfinite(whiten).all()
    if n == 400:
        # The statistic that never varies comes first, and counts for nothing.
        np.testing.assert_allclose(np.cov((residuals @ whiten).T), np.diag([0, 1, 1, 1]), atol=0.15)


def test_p_values_by_hand() -> None:
    """Of 1 to 100, so great as 50 are half: (1 + 100·0.5) / 101.

    The tail begins at 90 with (1 + 100·0.1) / 101; its knots 90, 91 … 100 exceed that by 5 on average.
    """
    reference = Reference.of(np.arange(1, 101, dtype=float), np.ones(100))
    assert reference.knots[90:].tolist() == list(range(90, 101))
    p = np.exp(reference.log_p(np.array([0.0, 50.0, 90.0, 95.0, 100.0, 190.0])))
    expected = [1, 51 / 101, 11 / 101, 11 / 101 * np.exp(-1), 11 / 101 * np.exp(-2), 11 / 101 * np.exp(-20)]
    assert p.tolist() == pytest.approx(expected)


def test_a_constant_reference_makes_everything_greater_rare() -> None:
    log_p = Reference.of(np.full(30, 2.0), np.ones(30)).log_p(np.array([1.0, 2.0, 2.1]))
    assert log_p[0] == 0
    assert np.isfinite(log_p).all()
    assert log_p[2] < log_p[1] - 9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60), st.floats(-99, 99), st.floats(0, 99))
def test_greater_values_are_never_more_common(held_out: list[float], value: float, step: float) -> None:
    common, rare = Reference.of(np.array(held_out), np.ones(len(held_out))).log_p(np.array([value, value + step]))
    assert 0 >= common >= rare - 1e-9 > -np.inf


def test_p_values_of_several_columns_are_those_of_each() -> None:
    rng = np.random.default_rng(4)
    references = [Reference.of(rng.normal(at, 1, 60 + at), np.ones(60 + at)) for at in range(3)]
    values = rng.normal(1, 2, (20, 3))
    knots, n = np.stack([one.knots for one in references]), np.array([float(one.n) for one in references])
    expected = np.column_stack([one.log_p(values[:, at]) for at, one in enumerate(references)])
    np.testing.assert_array_equal(log_p_values(values, knots, n), expected)


def test_held_out_values_have_uniform_p_values() -> None:
    rng = np.random.default_rng(5)
    reference = Reference.of(rng.normal(size=2000), np.ones(2000))
    assert stats.kstest(np.exp(reference.log_p(rng.normal(size=500))), "uniform").pvalue > 0.05


def test_every_patient_weighs_the_same_in_a_reference() -> None:
    """Patient A has 90 slices at 0, patient B 10 slices at 1: half of the weight each."""
    values, weights = np.r_[np.zeros(90), np.ones(10)], np.r_[np.full(90, 1 / 90), np.full(10, 1 / 10)]
    reference = Reference.of(values, weights)
    assert (reference.knots == 0).mean() == pytest.approx(0.5, abs=0.01)
    single = Reference.of(np.array([3.0]), np.array([1.0]))
    assert single.knots.tolist() == [3.0] * RANKS


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 4.0), (0.2, 3.0), (0.39, 3.0), (0.4, 2.0), (1.0, 0.0)])
def test_the_alarm_threshold_keeps_the_false_alarm_rate(rate: float, expected: float) -> None:
    """Scores 0 to 4, each a fifth of the weight: above 3 lies one fifth, above 2 lie two."""
    scores = np.array([3, 0, 4, 1, 2], dtype=np.float32)
    assert alarm_threshold(scores, np.ones(5), rate) == expected


def test_damaged_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="knots"):
        Reference(np.zeros(7), 3)
    with pytest.raises(ValueError, match="whiten"):
        Gaussian(np.tile(LEVELS, (2, 1)), np.zeros((1, 2)), np.full((2, 2), np.nan))
