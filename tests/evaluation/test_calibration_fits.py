"""Fitted calibrators against other implementations, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from betacal import BetaCalibration
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import ttest_1samp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_predict

from slicewise.errors import TrainingError
from slicewise.evaluation.calibrators import fit_map
from slicewise.evaluation.choose_calibrator import SIMPLEST_FIRST, choose_calibrator
from slicewise.evaluation.reliability import log_losses
from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import Calibrator, Method

METHODS: tuple[Method, ...] = ("temperature", "platt", "beta", "isotonic")


def sample(
    n: int = 4000, seed: int = 0, slope: float = 0.5, shift: float = -0.7, patients: int = 20, spread: float = 0.0
) -> Scored:
    """Logits whose true log-odds are ``slope * logit + shift``, plus what each patient adds."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, n).astype(np.float32)
    own = rng.normal(0, spread, patients) if spread else np.zeros(patients)
    patient = np.arange(n) % patients
    truth = (rng.random(n) < expit(slope * logits + shift + own[patient])).astype(np.float32)
    return Scored.of(logits, truth, [f"p{at:02}" for at in patient])


class Score(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its only feature."""

    def __init__(self) -> None:
        self.classes_ = np.array([0.0, 1.0])

    def fit(self, features: Any, truth: Any) -> Score:
        return self

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        return self.decision_function(features) > 0

    def decision_function(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return features[:, 0].astype(np.float64)


def sklearns(method: str) -> CalibratedClassifierCV:
    return CalibratedClassifierCV(FrozenEstimator(Score().fit(None, None)), method=method)


def applied(method: Method, scored: Scored, logits: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    parameters = fit_map(method, scored)
    assert parameters is not None
    return Calibrator(method=method, parameters=parameters).apply(scored.logits if logits is None else logits)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("method", "name"), [("platt", "sigmoid"), ("temperature", "temperature")])
def test_logistic_maps_equal_scikit_learns(method: Method, name: str, seed: int) -> None:
    scored = sample(seed=seed)
    features = scored.logits[:, None]
    expected = sklearns(name).fit(features, scored.truth).predict_proba(features)[:, 1]
    np.testing.assert_allclose(applied(method, scored), expected, atol=1e-3)


@pytest.mark.parametrize(("slope", "shift"), [(0.5, -0.7), (1.5, 0.4), (1.0, 0.0)])
def test_beta_equals_its_authors(slope: float, shift: float) -> None:
    """Theirs has no smoothing of the targets, which is worth 1 value in 20,000."""
    scored = sample(20000, slope=slope, shift=shift)
    raw = expit(scored.logits.astype(np.float64))
    expected = BetaCalibration(parameters="abm").fit(raw[:, None], scored.truth).predict(raw)
    np.testing.assert_allclose(applied("beta", scored), expected, atol=2e-3)


def test_beta_keeps_its_bounds() -> None:
    """True log-odds that rise with log p only: the unbounded b would be below 0."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, 5000).astype(np.float32)
    truth = (rng.random(5000) < expit(2 * np.log(expit(logits)) + 1.5 - 0.3 * np.log1p(np.exp(logits)))).astype(
        np.float32
    )
    parameters = fit_map("beta", Scored.of(logits, truth, ["p"] * 5000))
    assert parameters is not None
    assert (parameters.b, parameters.a > 1) == (0.0, True)


def test_isotonic_goes_through_the_blocks_of_scikit_learns() -> None:
    scored = sample(500, seed=4)
    blocks = IsotonicRegression(y_min=1 / 502, y_max=501 / 502).fit_transform(scored.logits, scored.truth)
    levels = np.unique(blocks)
    centres = np.array([scored.logits[blocks == level].mean() for level in levels], dtype=np.float32)
    np.testing.assert_allclose(applied("isotonic", scored, centres), levels, atol=1e-4)
    ranks = np.argsort(scored.logits)
    inner = (scored.logits > centres[0]) & (scored.logits < centres[-1])
    assert (np.diff(applied("isotonic", scored)[ranks][inner[ranks]]) > 0).mean() > 0.99  # hardly a tie


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_counts_like_so_many_values(method: Method) -> None:
    scored = sample(300, seed=5)
    counts = np.random.default_rng(1).integers(1, 4, 300)
    weighted = Scored(scored.logits, scored.truth, scored.groups, counts.astype(np.float32))
    repeated = scored.take(np.repeat(np.arange(300), counts))
    np.testing.assert_allclose(applied(method, weighted), applied(method, repeated, weighted.logits), atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_separated_classes_give_a_finite_map(method: Method) -> None:
    logits = np.concatenate([np.linspace(-3, -1, 50), np.linspace(1, 3, 50)]).astype(np.float32)
    scored = Scored.of(logits, (logits > 0).astype(np.float32), ["p"] * 100)
    found = applied(method, scored)
    assert (found[:50] < 0.5).all()
    assert (found[50:] > 0.5).all()
    assert 0 < found[0] < 0.05 < 0.95 < found[-1] < 1


def test_what_cannot_be_fitted_is_none() -> None:
    falling = Scored.of(np.array([-2, -1, 1, 2], np.float32), np.array([1, 1, 0, 0], np.float32), list("abcd"))
    assert [fit_map(method, falling) for method in ("platt", "beta", "isotonic")] == [None, None, None]
    one_class = Scored.of(np.array([-2, 1], np.float32), np.ones(2, np.float32), list("ab"))
    assert [fit_map(method, one_class) for method in METHODS] == [None] * 4
    assert fit_map("identity", one_class) is not None


def test_temperature_is_found() -> None:
    found = choose_calibrator(sample(slope=1 / 3, shift=0.0), ("temperature",), 5, "tumour")
    assert (found.method, found.kept) == ("temperature", True)
    assert found.parameters.temperature == pytest.approx(3.0, rel=0.1)
    assert found.nll_after < found.nll_before
    assert found.reason.endswith("over 20 patients: kept")


def test_the_simplest_of_equals_is_chosen() -> None:
    """Log-odds that are a scaled logit need a temperature, shifted ones Platt's, bent ones more."""
    assert choose_calibrator(sample(8000, slope=0.4, shift=0.0), METHODS, 5, "t").method == "temperature"
    assert choose_calibrator(sample(8000, slope=0.4, shift=-1.0), METHODS, 5, "t").method == "platt"
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 8000).astype(np.float32)
    truth = (rng.random(8000) < np.where(logits > 1, 0.95, np.where(logits > -1, 0.5, 0.05))).astype(np.float32)
    steps = Scored.of(logits, truth, [f"p{at % 20}" for at in range(8000)])
    assert choose_calibrator(steps, METHODS, 5, "t").method == "isotonic"


def test_calibrated_logits_are_left_alone() -> None:
    found = choose_calibrator(sample(3000, slope=1.0, shift=0.0, seed=2), METHODS, 5, "tumour")
    assert (found.method, found.kept, found.nll_after) == ("identity", False, found.nll_before)
    assert "no sure gain, not applied" in found.reason
    assert [candidate.method for candidate in found.candidates] == list(SIMPLEST_FIRST)


def test_what_helps_some_patients_only_is_not_applied() -> None:
    """Confident and right for one patient, confident and half wrong for the other: each misleads the other."""
    logits = np.array([4.0, -4.0] * 200, dtype=np.float32)
    right = np.array([1.0, 0.0] * 100, dtype=np.float32)
    wrong = right.copy()
    wrong[::5] = 1 - wrong[::5]
    truth = np.concatenate([right, wrong])
    found = choose_calibrator(Scored.of(logits, truth, ["a"] * 200 + ["b"] * 200), METHODS, 2, "tumour")
    assert (found.method, found.kept) == ("identity", False)
    assert found.candidates[1].nll > found.nll_before


def test_few_patients_must_agree() -> None:
    """With patients of one size the choice is a t-test of their gains, here by scikit-learn and SciPy."""
    outcomes = set()
    for seed in range(12):
        scored = sample(200, seed, slope=0.7, shift=0.0, patients=4, spread=0.5)
        features = scored.logits[:, None]
        held_out = cross_val_predict(
            sklearns("temperature"),
            features,
            scored.truth,
            groups=scored.groups,
            cv=GroupKFold(4),
            method="predict_proba",
        )[:, 1]
        gains = log_losses(expit(scored.logits), scored.truth) - log_losses(held_out, scored.truth)
        of_patients = [gains[scored.groups == name].mean() for name in np.unique(scored.groups)]
        sure = bool(ttest_1samp(of_patients, 0.0, alternative="greater").pvalue < 0.05)
        assert choose_calibrator(scored, ("temperature",), 4, "tumour").kept is sure
        outcomes.add((float(np.mean(of_patients)) > 0, sure))
    assert outcomes == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize(("method", "name"), [("platt", "sigmoid"), ("temperature", "temperature")])
def test_held_out_nll_equals_scikit_learns(method: Method, name: str) -> None:
    scored = sample(1000, seed=7)
    features = scored.logits[:, None]
    folds = GroupKFold(5)
    held_out = cross_val_predict(
        sklearns(name), features, scored.truth, groups=scored.groups, cv=folds, method="predict_proba"
    )
    found = choose_calibrator(scored, (method,), 5, "tumour")
    assert found.candidates[1].nll == pytest.approx(log_loss(scored.truth, held_out[:, 1]), abs=1e-4)
    assert found.nll_before == pytest.approx(log_loss(scored.truth, expit(scored.logits)), abs=1e-5)


def test_the_error_of_the_gain_is_that_of_independent_patients() -> None:
    """The same values again add no patients; taken for independent, they would shrink the error by √3."""
    scored = sample(100, patients=100)
    again = scored.take(np.tile(np.arange(100), 3))
    once, thrice = (
        choose_calibrator(each, ("temperature",), 100, "t").candidates[1].gain_error for each in (scored, again)
    )
    assert thrice == pytest.approx(once, rel=0.1)


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(2, 60), st.integers(2, 8), st.floats(-2, 3), st.floats(-2, 2), st.floats(0, 3)
)
def test_calibration_never_raises_the_held_out_nll(
    seed: int, n: int, patients: int, slope: float, shift: float, spread: float
) -> None:
    found = choose_calibrator(sample(n, seed, slope, shift, patients, spread), METHODS, 5, "tumour")
    if found.nll_before is None:
        assert (found.method, found.kept) == ("identity", False)
    else:
        assert found.nll_after <= found.nll_before
        assert found.kept is (found.nll_after < found.nll_before)


@pytest.mark.parametrize(
    ("truth", "groups", "said"),
    [
        ([1, 1, 1, 1], "abcd", "one class only"),
        ([0, 0, 0, 0], "abcd", "one class only"),
        ([0, 1, 0, 1], "aaaa", "too few patients"),
        ([], "", "too few patients"),
        # without patient a there is no tumour left to fit on
        ([1, 0, 0, 0], "aabb", "no method could be fitted"),
    ],
)
def test_where_nothing_can_be_fitted(truth: Sequence[int], groups: str, said: str) -> None:
    logits = np.linspace(-1, 1, len(truth)).astype(np.float32)
    scored = Scored.of(logits, np.array(truth, dtype=np.float32), list(groups))
    found = choose_calibrator(scored, METHODS, 5, "tumour")
    assert (found.method, found.kept) == ("identity", False)
    assert said in found.reason
    np.testing.assert_allclose(found.apply(logits), expit(logits), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    scored = Scored.of(np.array([0.0, value], np.float32), np.array([0, 1], np.float32), list("ab"))
    with pytest.raises(TrainingError, match="1 of 2 logits of WT are not finite") as caught:
        choose_calibrator(scored, METHODS, 5, "WT")
    assert caught.value.cure
