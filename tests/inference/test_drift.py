"""Drift of served values against scipy, by hand, and on values with ties, too few or none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from slicewise.inference.drift import FEWEST, Drift, kolmogorov_smirnov, measure, over_time, stability_index, watch
from slicewise.inference.ood_distance import RANKS, Reference


def normal_reference(n: int = 1000) -> Reference:
    return Reference.of(stats.norm.ppf((np.arange(n) + 0.5) / n), np.ones(n))


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_kolmogorov_smirnov_against_scipy(shift: float) -> None:
    reference = normal_reference()
    values = np.random.default_rng(0).normal(shift, 1, 300)
    expected = stats.ks_1samp(values, lambda at: np.interp(at, reference.knots, np.linspace(0, 1, RANKS)))
    assert kolmogorov_smirnov(reference, values) == pytest.approx(expected.statistic)


def test_kolmogorov_smirnov_where_values_are_equal() -> None:
    """Half of the reference is 0: three quarters at 0 are a quarter too many, and no 0 at all is half of it."""
    reference = Reference.of(np.r_[np.zeros(500), np.linspace(1, 2, 500)], np.ones(1000))
    assert kolmogorov_smirnov(reference, np.r_[np.zeros(75), np.linspace(1, 2, 25)]) == pytest.approx(0.25, abs=0.02)
    assert kolmogorov_smirnov(reference, np.linspace(1, 2, 100)) == pytest.approx(0.5, abs=0.02)
    constant = Reference.of(np.full(30, 5.0), np.ones(30))
    assert kolmogorov_smirnov(constant, np.full(60, 5.0)) == 0
    assert kolmogorov_smirnov(constant, np.full(60, 5.1)) == 1


def test_stability_index_by_hand() -> None:
    """All 100 values in the first of ten bins: (100.5/105, then 0.5/105 nine times) against about a tenth each."""
    index, bins = stability_index(normal_reference(), np.full(100, -9.0))
    assert bins == 10
    first, other = 100.5 / 105, 0.5 / 105
    expected = (first - 0.1) * np.log(first / 0.1) + 9 * (other - 0.1) * np.log(other / 0.1)
    assert index == pytest.approx(expected, rel=1e-3)


def test_stability_index_of_a_shift_is_that_of_two_normal_distributions() -> None:
    """It is the symmetric Kullback-Leibler divergence, binned: shift² without bins, and less with them."""
    values = stats.norm.ppf((np.arange(5000) + 0.5) / 5000, loc=1.0)
    index, _ = stability_index(normal_reference(5000), values)
    assert 0.8 < index < 1.0


def test_equal_deciles_share_a_bin() -> None:
    reference = Reference.of(np.r_[np.zeros(700), np.linspace(1, 2, 300)], np.ones(1000))
    same = np.r_[np.zeros(140), np.linspace(1, 2, 60)]
    index, bins = stability_index(reference, same)
    assert bins == 4
    assert index < 0.02


def test_p_value_is_that_of_two_samples() -> None:
    rng = np.random.default_rng(1)
    values, reference = rng.normal(0.2, 1, 400), normal_reference(800)
    found = measure(reference, values)
    assert found.ks is not None
    effective = round(400 * 800 / 1200)
    assert found.ks_p == pytest.approx(stats.kstwo.sf(found.ks, effective))


def test_drift_is_told_when_it_is_there_and_only_then() -> None:
    rng = np.random.default_rng(2)
    reference = normal_reference()
    assert not any(measure(reference, rng.normal(0, 1, 200)).drifted for _ in range(200))
    assert all(measure(reference, rng.normal(1, 1, 200)).drifted for _ in range(50))
    assert all(measure(reference, rng.normal(0, 0.4, 200)).drifted for _ in range(50))


def test_few_values_need_a_greater_shift() -> None:
    few, many = (measure(normal_reference(60), np.zeros(n) + np.arange(n) / n) for n in (FEWEST, 5000))
    assert few.psi_limit is not None
    assert many.psi_limit is not None
    assert few.psi_limit > many.psi_limit >= 0.2


@pytest.mark.parametrize("values", [[], [0.1] * (FEWEST - 1), [float("nan")] * 500])
def test_too_few_values_say_nothing(values: list[float]) -> None:
    n = 0 if not values or values[0] != values[0] else len(values)
    assert measure(normal_reference(), values) == Drift(n)


def test_failed_items_are_left_out() -> None:
    values = np.random.default_rng(3).normal(0, 1, 300)
    mixed = np.insert(values, [0, 100, 300], [np.nan, np.inf, np.nan])
    assert measure(normal_reference(), mixed) == measure(normal_reference(), values)


def test_the_window_is_the_latest_values() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.normal(0, 1, 400).tolist(), rng.normal(3, 1, 200).tolist()
    references = {"score": normal_reference(), "shape": normal_reference()}
    found = watch(references, {"score": before + after, "other": before}, window=200)
    assert found["score"] == measure(references["score"], after)
    assert found["score"].drifted is True
    assert found["shape"] == Drift(0)
    assert list(found) == ["score", "shape"]
    steps = over_time(references["score"], before + after, window=250)
    assert [step.n for step in steps] == [250, 250, 100]
    assert [step.drifted for step in steps] == [False, True, True]


@settings(max_examples=60, deadline=None)
@given(
    reference=st.lists(st.floats(-5, 5), min_size=1, max_size=40),
    values=st.lists(st.floats(-50, 50), min_size=FEWEST, max_size=90),
)
@example(reference=[0.0, -5e-324], values=[0.0] * FEWEST)
def test_figures_are_finite_and_in_range(reference: list[float], values: list[float]) -> None:
    found = measure(Reference.of(np.array(reference), np.ones(len(reference))), values)
    assert found.psi is not None
    assert found.psi >= 0
    assert found.ks is not None
    assert 0 <= found.ks <= 1
    assert found.ks_p is not None
    assert 0 <= found.ks_p <= 1
