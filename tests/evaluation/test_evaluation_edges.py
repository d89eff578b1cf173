"""Figures where something is missing, one-sided or extreme."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from small_run import MODEL, SmallRun

from slicewise.config import EvaluateConfig, GateConfig
from slicewise.evaluation.classification import classification_figures, roc_points
from slicewise.evaluation.evaluate import EvaluateJob, evaluate_stage
from slicewise.evaluation.intervals import bootstrap
from slicewise.evaluation.overlap import region_figures
from slicewise.evaluation.reliability import expected_calibration_error, log_losses

CONFIG = EvaluateConfig(bootstrap=100)
VECTORS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
        hnp.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])),
    )
)


def slow_ece(probability: NDArray[np.float32], truth: NDArray[np.float32], n_bins: int) -> float:
    """The definition, one value at a time; a value on an edge belongs to the bin above."""
    bins: dict[int, list[tuple[float, float]]] = {}
    edges = [float(edge) for edge in np.linspace(0, 1, n_bins + 1)]
    for p, y in zip(probability.tolist(), truth.tolist(), strict=True):
        bins.setdefault(min(sum(p >= edge for edge in edges[1:]), n_bins - 1), []).append((p, y))
    gaps = [abs(sum(p for p, _ in rows) - sum(y for _, y in rows)) for rows in bins.values()]
    return sum(gaps) / len(probability)


@settings(deadline=None)
@given(VECTORS, st.integers(2, 15))
def test_ece_is_its_definition(vectors: tuple[NDArray[np.float32], NDArray[np.float32]], n_bins: int) -> None:
    probability, truth = vectors
    found = expected_calibration_error(probability, truth, n_bins)
    assert found == pytest.approx(slow_ece(probability, truth, n_bins), abs=1e-5)


def point_figures(
    probability: NDArray[np.float32], truth: NDArray[np.float32], threshold: float
) -> dict[str, float | None]:
    groups = [str(at) for at in range(len(truth))]
    figures = classification_figures(probability, truth, groups, threshold, CONFIG)
    return {name: figure.value for name, figure in figures.items()}


@settings(deadline=None)
@given(VECTORS, st.floats(0, 1))
def test_figures_are_shares_or_undefined(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]], threshold: float
) -> None:
    """Whatever the predictions: no division by zero, no NaN, and None exactly where the class is missing."""
    probability, truth = vectors
    found = point_figures(probability, truth, threshold)
    nll, mcc = found.pop("nll"), found.pop("mcc")
    assert mcc is None or -1 <= mcc <= 1
    assert nll is not None
    assert 0 <= nll <= -np.log(9e-8)
    assert all(value is None or 0 <= value <= 1 for value in found.values())
    assert (found["sensitivity"] is None) == (truth.sum() == 0)
    assert (found["specificity"] is None) == (truth.min() == 1)
    assert (found["roc_auc"] is None) == (len(set(truth.tolist())) == 1)
    assert (found["ppv"] is None) == (not (probability >= threshold).any())


def test_figures_of_a_table() -> None:
    """Tp 3, fn 1, fp 2, tn 4."""
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], dtype=np.float32)
    probability = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.6, 0.2, 0.2, 0.1, 0.0], dtype=np.float32)
    found = point_figures(probability, truth, 0.5)
    expected = {"accuracy": 0.7, "sensitivity": 0.75, "specificity": 4 / 6, "ppv": 0.6, "npv": 0.8, "f1": 6 / 9}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_certain_and_wrong_costs_much_but_not_infinity() -> None:
    assert np.isfinite(log_losses(np.array([0.0, 1.0]), np.array([1.0, 0.0]))).all()


def test_roc_points_are_thinned_finite_and_span_the_square() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(5000).astype(np.float32)
    points = roc_points(probability, (rng.random(5000) < probability).astype(np.float32))
    assert len(points["fpr"]) == len(points["tpr"]) == len(points["threshold"]) <= 200
    assert (points["fpr"][0], points["tpr"][0]) == (0, 0)
    assert (points["fpr"][-1], points["tpr"][-1]) == (1, 1)
    assert np.isfinite(points["threshold"]).all()


def test_the_bootstrap_draws_whole_patients() -> None:
    """Every draw holds each patient's rows all, or not at all, or several times all."""
    groups = ["a"] * 5 + ["b"] * 3 + ["c"]
    draws: list[list[int]] = []

    def note(rows: NDArray[np.intp]) -> float:
        draws.append(sorted(rows.tolist()))
        return 0.0

    bootstrap(note, groups, 100, 0.9)
    for rows in draws:
        counts = np.bincount(rows, minlength=9)
        assert {len(set(counts[:5])), len(set(counts[5:8]))} == {1}
        assert counts[0] + counts[5] + counts[8] == 3
    assert len({tuple(rows) for rows in draws}) > 5


def test_intervals_hold_the_value_and_are_repeatable() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=200), [f"p{at // 10}" for at in range(200)]

    def mean(rows: NDArray[np.intp]) -> float:
        return float(values[rows].mean())

    wide, narrow = bootstrap(mean, groups, 300, 0.99), bootstrap(mean, groups, 300, 0.6)
    assert wide.low < narrow.low < wide.value < narrow.high < wide.high
    assert bootstrap(mean, groups, 300, 0.99) == wide
    undefined = bootstrap(lambda rows: None, groups, 100, 0.9)
    assert (undefined.value, undefined.low, undefined.n) == (None, None, 20)


def test_dice_and_volumes_of_one_study() -> None:
    place = np.arange(80)[None, None]
    predicted = {"WT": place < 40, "TC": place < 7, "ET": place < 0}
    reference = {"WT": (place >= 10) & (place < 60), "TC": place < 0, "ET": None}
    record = {name: region_figures(predicted[name], reference[name], (1.0, 1.0, 1.0)) for name in predicted}
    assert record["WT"]["dice"] == pytest.approx(60 / 90)
    assert record["WT"]["iou"] == pytest.approx(30 / 60)
    assert (record["TC"]["dice"], record["TC"]["iou"], record["TC"]["false_positive"]) == (None, None, True)
    assert (record["ET"]["dice"], record["ET"]["known"], record["ET"]["false_positive"]) == (None, False, False)
    assert record["ET"]["reference_ml"] is None


def test_an_evaluation_can_be_repeated(small_run: SmallRun, tmp_path: Path) -> None:
    job = EvaluateJob(
        store=small_run.data.store.folder,
        split=small_run.data.folder / "split",
        weights=small_run.weights,
        calibration=small_run.calibration,
        model=MODEL,
        evaluate=CONFIG,
        gate=GateConfig(min_roc_auc=0.1, min_dice_wt=1.0, max_ece=0.9),
    )
    assert evaluate_stage(job, tmp_path) == small_run.metrics
