"""The band of unsure answers: its quantile, its coverage, and what the decisions do on a test split."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from slicewise.config import EvaluateConfig
from slicewise.evaluation.conformal import conformal_band, hierarchical_quantile
from slicewise.evaluation.decision_report import answers, decision_section
from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import (
    Abstain,
    Calibration,
    Calibrator,
    IsotonicMap,
    PlattMap,
    TemperatureMap,
    Threshold,
)

CONFIG = EvaluateConfig(bootstrap=200)
PLATT = Calibrator(method="platt", parameters=PlattMap(slope=0.5, intercept=-1.0))


def hierarchical(patients: int, rng: np.random.Generator, separation: float = 2.0) -> Scored:
    """Patients of 4 to 40 slices; a patient's slices share what is peculiar to it, and small ones are harder."""
    logits, truth, groups = [], [], []
    for patient in range(patients):
        n = int(rng.integers(4, 41))
        tumour = (np.arange(n) < max(2, int(rng.uniform(0.2, 0.8) * n))).astype(np.float32)
        logits.append((2 * tumour - 1) * (separation - 1.5 + n / 20) + rng.normal(0, 1.5) + rng.normal(0, 0.7, n))
        truth.append(tumour)
        groups += [f"p{patient:03}"] * n
    return Scored.of(np.concatenate(logits).astype(np.float32), np.concatenate(truth), groups)


def missed(scored: Scored, calibration: Calibration, label: int) -> list[float]:
    """Share of wrong sure answers among each patient's slices of one class."""
    answer = answers(calibration.tumour.apply(scored.logits), calibration)
    wrong = answer == (0 if label else 2)
    return [
        float(wrong[(scored.groups == name) & (scored.truth == label)].mean()) for name in np.unique(scored.groups)
    ]


@pytest.mark.parametrize(("patients", "alpha"), [(9, 0.1), (20, 0.1), (30, 0.2), (7, 0.3)])
def test_new_patients_are_covered(patients: int, alpha: float) -> None:
    """Over many calibration sets: each class gets at most alpha wrong sure answers, and not far fewer."""
    rng = np.random.default_rng(0)
    shares: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(300):
        band = conformal_band(hierarchical(patients, rng), PLATT, 0.3, alpha)
        made = Calibration(tumour=PLATT, threshold=Threshold(value=0.3), abstain=band)
        new = hierarchical(4, rng, separation=2.0)
        for label, found in shares.items():
            found.append(float(np.mean(missed(new, made, label))))
    for found in shares.values():
        error = float(np.std(found) / math.sqrt(len(found)))
        assert np.mean(found) <= alpha + 3 * error
        assert np.mean(found) >= alpha - 2 / (patients + 1) - 3 * error


def test_pooling_the_slices_would_promise_too_much() -> None:
    """Why not plain split conformal: with few patients the quantile over slices misses its promise."""
    rng = np.random.default_rng(1)
    plain, grouped = [], []
    for _ in range(400):
        calibration, new = hierarchical(9, rng), hierarchical(4, rng)
        tumour = calibration.take(calibration.truth == 1)
        n = len(tumour)
        pooled = np.sort(-tumour.logits)[math.ceil((n + 1) * 0.9) - 1]
        by_patient = hierarchical_quantile(-tumour.logits, tumour.groups, 0.1)
        for name in np.unique(new.groups):
            scores = -new.logits[(new.groups == name) & (new.truth == 1)]
            plain.append(float((scores > pooled).mean()))
            grouped.append(float((scores > by_patient).mean()))
    error = float(np.std(plain) / math.sqrt(400))
    assert np.mean(plain) > 0.1 + 3 * error
    assert np.mean(grouped) <= 0.1 + 3 * error


def test_the_quantile_of_a_table() -> None:
    """Three patients with shares of 1/4 for each: one slice, two of 1/8, four of 1/16; 1/4 is the new one's.

    In order: 1 (1/4), 2 (1/8), 3 (1/16), 4 (1/8), 5, 6, 7 (1/16 each). Reached: 4/16, 6, 7, 9, 10, 11, 12/16.
    """
    scores = np.array([1.0, 2.0, 4.0, 3.0, 5.0, 6.0, 7.0])
    groups = np.array(["a", "b", "b", "c", "c", "c", "c"])
    for alpha, expected in [(0.75, 1.0), (0.7, 2.0), (0.5, 4.0), (0.45, 4.0), (0.4, 5.0), (0.25, 7.0)]:
        assert hierarchical_quantile(scores, groups, alpha) == expected
    assert hierarchical_quantile(scores, groups, 0.24) == math.inf
    assert hierarchical_quantile(np.zeros(0), np.zeros(0), 0.1) == math.inf


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.floats(0.02, 0.49))
def test_with_one_slice_each_it_is_split_conformal_prediction(values: list[int], alpha: float) -> None:
    """The ceil((n + 1)(1 - alpha))-th smallest score (Papadopoulos et al., 2002)."""
    rank = math.ceil((len(values) + 1) * (1 - alpha) - 1e-6)
    expected = sorted(values)[rank - 1] if rank <= len(values) else math.inf
    found = hierarchical_quantile(np.array(values, dtype=float), np.arange(len(values)), alpha)
    assert found == expected


def test_the_band_does_not_depend_on_the_calibrator() -> None:
    """The scores are raw logits: any calibrator that rises gives the same answers to the same slices."""
    rng = np.random.default_rng(3)
    scored, new = hierarchical(15, rng, 1.0), hierarchical(30, rng, 1.0)
    made: list[NDArray[np.intp]] = []
    bent = Calibrator(method="isotonic", parameters=IsotonicMap(knots=((-20.0, -6.0), (0.0, -1.0), (20.0, 6.0))))
    hot = Calibrator(method="temperature", parameters=TemperatureMap(temperature=3.0))
    for calibrator in (Calibrator(), PLATT, bent, hot):
        threshold = float(calibrator.apply(np.array(0.1, dtype=np.float32)))
        band = conformal_band(scored, calibrator, threshold, 0.1)
        calibration = Calibration(tumour=calibrator, threshold=Threshold(value=threshold), abstain=band)
        made.append(answers(calibrator.apply(new.logits), calibration))
    assert set(made[0].tolist()) == {0, 1, 2}
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)


def test_separable_classes_need_no_band() -> None:
    """Nothing is unsure where the threshold lies between the classes; it widens the band where it does not."""
    logits = np.array([-3.0, -2.0, 2.0, 3.0] * 12, dtype=np.float32)
    scored = Scored.of(logits, (logits > 0).astype(np.float32), [f"p{at // 4}" for at in range(48)])
    band = conformal_band(scored, Calibrator(), 0.5, 0.1)
    assert (band.low, band.high, band.patients) == (0.5, 0.5, (12, 12))
    low = conformal_band(scored, Calibrator(), 0.01, 0.1)
    assert low.low == 0.01
    assert low.high == pytest.approx(1 / (1 + math.exp(2)), abs=1e-6)
    made = Calibration(threshold=Threshold(value=0.01), abstain=low)
    assert made.decide(float(Calibrator().apply(np.array(-2.0, dtype=np.float32)))) == "unsure"


def test_logits_beyond_float32() -> None:
    """Where the probability of a free slice rounds to 1, "tumour" is never sure."""
    logits = np.array([40.0, 50.0] * 12, dtype=np.float32)
    scored = Scored.of(logits, np.array([0.0, 1.0] * 12, dtype=np.float32), [f"p{at // 2}" for at in range(24)])
    band = conformal_band(scored, Calibrator(), 0.5, 0.1)
    assert band.high > 1
    assert Calibration(abstain=band).decide(1.0) == "unsure"


@pytest.mark.parametrize(
    ("truth", "groups", "counts"),
    [
        ([0, 1] * 8, [f"p{at // 2}" for at in range(16)], (8, 8)),
        ([1] * 16, [f"p{at}" for at in range(16)], (16, 0)),
        ([0] * 16, [f"p{at}" for at in range(16)], (0, 16)),
        ([0, 1] * 8, ["p"] * 16, (1, 1)),
        ([], [], (0, 0)),
    ],
)
def test_too_few_patients_for_the_promise(truth: list[int], groups: list[str], counts: tuple[int, int]) -> None:
    scored = Scored.of(np.linspace(-1, 1, len(truth)).astype(np.float32), np.array(truth, np.float32), groups)
    band = conformal_band(scored, Calibrator(), 0.5, 0.1)
    assert (band.available, band.patients, band.alpha) == (False, counts, 0.1)
    assert "needs 9 validation patients" in band.reason
    assert f"there are {counts[0]} and {counts[1]}" in band.reason
    section = decision_section(np.zeros(0), np.zeros(0), [], Calibration(abstain=band), CONFIG)
    assert section == {"threshold": 0.5, "rule": "default", "abstain": None, "reason": band.reason}


def test_nine_patients_are_enough_for_a_tenth() -> None:
    truth = np.array([0, 1] * 9, dtype=np.float32)
    scored = Scored.of((truth - 0.5).astype(np.float32), truth, [f"p{at // 2}" for at in range(18)])
    assert conformal_band(scored, Calibrator(), 0.5, 0.1).available
    assert not conformal_band(scored, Calibrator(), 0.5, 0.099).available
    assert conformal_band(scored, Calibrator(), 0.5, None).reason == "not asked for: alpha is null"


def test_a_decision_section_of_a_table() -> None:
    """Patient a: free slices sure, unsure and called tumour; b: one slice of each class right; c: tumour missed.

    Coverage of each patient: 2/3, 1, 0. Of free slices: a 2/3, b 1. Of tumour slices: b 1, c 0.
    """
    probability = np.array([0.1, 0.5, 0.9, 0.1, 0.9, 0.1])
    truth = np.array([0, 0, 0, 0, 1, 1], dtype=np.float32)
    abstain = Abstain(alpha=0.2, low=0.3, high=0.7, patients=(10, 10), reason="made")
    calibration = Calibration(threshold=Threshold(value=0.4, rule="by hand"), abstain=abstain)
    section = decision_section(probability, truth, list("aaabbc"), calibration, CONFIG)
    assert (section["threshold"], section["rule"], section["reason"]) == (0.4, "by hand", "made")
    found = section["abstain"]
    assert (found["alpha"], found["low"], found["high"], found["patients"]) == (0.2, 0.3, 0.7, [10, 10])
    assert found["coverage_target"] == pytest.approx(0.8)
    assert found["confusion3"] == [[2, 1, 1], [1, 0, 1]]
    expected = {
        "coverage": (2 / 3 + 1 + 0) / 3,
        "coverage_no_tumour": (2 / 3 + 1) / 2,
        "coverage_tumour": 1 / 2,
        "unsure_share": 1 / 6,
        "error_share_when_sure": 2 / 5,
    }
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    assert all(found[name]["low"] <= found[name]["value"] <= found[name]["high"] for name in expected)


def test_a_decision_section_where_shares_are_undefined() -> None:
    abstain = Abstain(alpha=0.1, low=0.3, high=0.7, patients=(10, 10))
    calibration = Calibration(abstain=abstain)
    empty = decision_section(np.zeros(0), np.zeros(0), [], calibration, CONFIG)["abstain"]
    assert (empty["coverage"]["value"], empty["unsure_share"]["value"]) == (None, None)
    unsure = decision_section(np.array([0.5, 0.4]), np.array([1.0, 1.0]), ["a", "b"], calibration, CONFIG)["abstain"]
    assert (unsure["unsure_share"]["value"], unsure["coverage"]["value"]) == (1.0, 1.0)
    assert (unsure["error_share_when_sure"]["value"], unsure["coverage_no_tumour"]["value"]) == (None, None)
