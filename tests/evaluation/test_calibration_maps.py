"""Calibration maps and the records of the bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from scipy.special import expit, logit

from slicewise.inference.calibration import (
    Abstain,
    BetaMap,
    Calibration,
    Calibrator,
    IdentityMap,
    IsotonicMap,
    PlattMap,
    TemperatureMap,
    Threshold,
)
from slicewise.inference.calibration_maps import CalibrationMap


def calibrator(parameters: CalibrationMap) -> Calibrator:
    return Calibrator(method=parameters.method, parameters=parameters)


def a_number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def isotonic_maps(draw: st.DrawFn) -> IsotonicMap:
    raw = draw(st.lists(st.integers(-100, 100), min_size=2, max_size=8, unique=True))
    calibrated = draw(st.lists(a_number(-8, 8), min_size=len(raw), max_size=len(raw)))
    knots = zip((x / 10 for x in sorted(raw)), sorted(calibrated), strict=True)
    return IsotonicMap(knots=tuple(knots))


MAPS = st.one_of(
    st.just(IdentityMap()),
    st.builds(TemperatureMap, temperature=a_number(0.05, 20)),
    st.builds(PlattMap, slope=a_number(0.01, 10), intercept=a_number(-5, 5)),
    st.builds(BetaMap, a=a_number(0.01, 5), b=a_number(0, 5), c=a_number(-5, 5)),
    st.builds(BetaMap, a=a_number(0, 5), b=a_number(0.01, 5), c=a_number(-5, 5)),
    isotonic_maps(),
)
LOGITS = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-40, 40, width=32))


@given(MAPS, LOGITS)
def test_probabilities_never_fall_and_stay_in_the_unit_interval(parameters: CalibrationMap, logits: Any) -> None:
    found = calibrator(parameters).apply(np.sort(logits))
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    # float32 rounds sums of near-equal terms either way: only its last bits may fall
    assert (np.diff(found) >= -1e-6).all()


@given(MAPS, a_number(0.001, 0.999))
def test_the_cut_is_the_inverse(parameters: CalibrationMap, probability: float) -> None:
    """At the cut the probability is reached, and a little below it is not."""
    made = calibrator(parameters)
    cut = made.logit_cut(probability)
    far = np.float32(1e4)
    if np.isneginf(cut):
        assert made.apply(-far) >= probability - 1e-5
    elif np.isposinf(cut):
        assert made.apply(far) <= probability + 1e-5
    else:
        below, at = made.apply(np.array([cut - 1e-3 * max(1, abs(cut)), cut], dtype=np.float32))
        assert at == pytest.approx(probability, abs=1e-3) or at > probability  # a steep piece of an isotonic map
        assert below <= probability + 1e-5


@given(MAPS, LOGITS, a_number(0.01, 0.99))
def test_a_cut_on_the_logit_is_a_cut_on_the_probability(parameters: CalibrationMap, logits: Any, p: float) -> None:
    made = calibrator(parameters)
    cut, probability = made.logit_cut(p), made.apply(logits)
    clear = np.abs(probability - p) > 1e-4
    np.testing.assert_array_equal((logits >= cut)[clear], (probability >= p)[clear])


@pytest.mark.parametrize(
    ("parameters", "z", "expected"),
    [
        (IdentityMap(), 0.7, expit(0.7)),
        (TemperatureMap(temperature=2.0), 3.0, expit(1.5)),
        (PlattMap(slope=2.0, intercept=-1.0), 0.5, 0.5),
        # 2 ln 0.8 - ln 0.2 + 0.5 = 1.66315, and 1 / (1 + exp(-1.66315)) = 0.84066
        (BetaMap(a=2.0, b=1.0, c=0.5), logit(0.8), 0.84066),
        (BetaMap(a=1.0, b=1.0, c=0.0), -1.3, expit(-1.3)),
        (IsotonicMap(knots=((-1.0, -2.0), (1.0, 0.0), (2.0, 3.0))), 0.0, expit(-1.0)),
        (IsotonicMap(knots=((-1.0, -2.0), (1.0, 0.0), (2.0, 3.0))), -50.0, expit(-2.0)),
        (IsotonicMap(knots=((-1.0, -2.0), (1.0, 0.0), (2.0, 3.0))), 50.0, expit(3.0)),
    ],
)
def test_maps_of_a_table(parameters: CalibrationMap, z: float, expected: float) -> None:
    assert calibrator(parameters).apply(np.array(z, dtype=np.float32)) == pytest.approx(expected, abs=1e-5)


def test_cuts_of_a_table() -> None:
    assert calibrator(TemperatureMap(temperature=2.0)).logit_cut(0.8) == pytest.approx(2 * np.log(4))
    assert calibrator(PlattMap(slope=2.0, intercept=-1.0)).logit_cut(0.5) == pytest.approx(0.5)
    bent = calibrator(IsotonicMap(knots=((-1.0, -2.0), (1.0, 0.0), (2.0, 0.0), (3.0, 1.0))))
    assert bent.logit_cut(0.5) == pytest.approx(1.0)  # where the level piece begins
    assert (bent.logit_cut(0.01), bent.logit_cut(0.99)) == (-np.inf, np.inf)
    half = calibrator(BetaMap(a=0.0, b=1.0, c=0.0))  # never below one half
    assert (half.logit_cut(0.4), half.logit_cut(0.6)) == (-np.inf, pytest.approx(np.log(np.exp(np.log(1.5)) - 1)))
    assert (Calibrator().logit_cut(0.0), Calibrator().logit_cut(1.0)) == (-np.inf, np.inf)


def test_any_shape_and_not_a_number() -> None:
    logits = np.array([[[0.0, np.nan], [30.0, -200.0]]], dtype=np.float32)
    for made in (
        Calibrator(),
        calibrator(BetaMap(a=1.0, b=2.0, c=0.0)),
        calibrator(IsotonicMap(knots=((-1.0, -1.0), (1.0, 1.0)))),
    ):
        found = made.apply(logits)
        assert found.shape == logits.shape
        np.testing.assert_array_equal(np.isnan(found), np.isnan(logits))
    assert Calibration().decide(float("nan")) == "unsure"


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "temperature"},
        {"method": "platt", "parameters": {"temperature": 1.0}},
        {"method": "temperature", "parameters": {"temperature": 0.0}},
        {"method": "temperature", "parameters": {"temperature": float("inf")}},
        {"method": "platt", "parameters": {"slope": -1.0, "intercept": 0.0}},
        {"method": "beta", "parameters": {"a": -0.1, "b": 1.0, "c": 0.0}},
        {"method": "beta", "parameters": {"a": 0.0, "b": 0.0, "c": 0.0}},
        {"method": "isotonic", "parameters": {"knots": [[0.0, 0.0]]}},
        {"method": "isotonic", "parameters": {"knots": [[0.0, 0.0], [0.0, 1.0]]}},
        {"method": "isotonic", "parameters": {"knots": [[0.0, 1.0], [1.0, 0.0]]}},
        {"method": "spline"},
        {"surprise": 1},
    ],
)
def test_a_map_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Calibrator.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"regions": {"WT": {}}},
        {"regions": {"WT": {}, "TC": {}, "ET": {}, "NCR": {}}},
        {"abstain": {"low": 0.5}},
        {"abstain": {"low": 0.6, "high": 0.5}},
        {"threshold": {"value": 1.5}},
    ],
)
def test_a_calibration_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(wrong)


@given(MAPS)
def test_records_read_back_the_same(parameters: CalibrationMap) -> None:
    made = Calibration(
        tumour=calibrator(parameters), abstain=Abstain(alpha=0.1, low=0.2, high=0.6, patients=(12, 11), reason="r")
    )
    assert Calibration.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("probability", "threshold", "expected"),
    [
        (0.19, None, "no_tumour"),
        (0.2, None, "unsure"),
        (0.59, None, "unsure"),
        (0.6, None, "tumour"),
        # a threshold outside the band: unsure where the two disagree
        (0.7, 0.8, "unsure"),
        (0.8, 0.8, "tumour"),
        (0.1, 0.05, "unsure"),
        (0.04, 0.05, "no_tumour"),
        (0.19, 0.3, "no_tumour"),
        (0.6, 0.3, "tumour"),
    ],
)
def test_decisions_of_a_table(probability: float, threshold: float | None, expected: str) -> None:
    made = Calibration(threshold=Threshold(value=0.4), abstain=Abstain(alpha=0.1, low=0.2, high=0.6))
    assert made.decide(probability, threshold) == expected


def test_without_a_band_the_threshold_decides() -> None:
    made = Calibration(threshold=Threshold(value=0.4))
    assert [made.decide(p) for p in (0.39, 0.4)] == ["no_tumour", "tumour"]
    assert [made.decide(p, 0.7) for p in (0.4, 0.7)] == ["no_tumour", "tumour"]
    assert made.abstain.available is False
