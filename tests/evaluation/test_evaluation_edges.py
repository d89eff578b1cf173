"""Figures, calibration, gate and report where something is missing, one-sided or extreme."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.torch import save_file
from small_run import MODEL, SmallRun

from slicewise.config import CalibrateConfig, EvaluateConfig, GateConfig, SliceConfig
from slicewise.evaluation.calibrate import choose_threshold, fit_temperature
from slicewise.evaluation.classification import classification_report, point_figures, roc_points
from slicewise.evaluation.evaluate import EvaluateJob, evaluate_stage
from slicewise.evaluation.gate import judge
from slicewise.evaluation.intervals import bootstrap
from slicewise.evaluation.overlays import draw_overlays, pick_studies
from slicewise.evaluation.plots import interval
from slicewise.evaluation.reliability import expected_calibration_error, negative_log_likelihood, reliability_bins
from slicewise.evaluation.report import model_card, short, write_report
from slicewise.evaluation.segmentation import StudyCounts, study_record
from slicewise.files import read_json, write_json
from slicewise.inference.predictor import sigmoid
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.store import INDEX
from slicewise.training.stage import WEIGHTS

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
    bins = reliability_bins(probability, truth, n_bins)
    assert sum(b["n"] for b in bins) == len(probability)


@settings(deadline=None)
@given(VECTORS, st.floats(0, 1))
def test_figures_are_shares_or_undefined(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]], threshold: float
) -> None:
    """Whatever the predictions: no division by zero, no NaN, and None exactly where the class is missing."""
    probability, truth = vectors
    found = point_figures(probability, truth, threshold, 10)
    nll = found.pop("nll")
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
    found = point_figures(probability, truth, 0.5, 10)
    expected = {"accuracy": 0.7, "sensitivity": 0.75, "specificity": 4 / 6, "ppv": 0.6, "npv": 0.8, "f1": 6 / 9}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_certain_and_wrong_costs_much_but_not_infinity() -> None:
    assert np.isfinite(negative_log_likelihood(np.array([0.0, 1.0]), np.array([1.0, 0.0])))


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
    counts = np.array([[30.0, 40, 50], [0, 7, 0], [0, 0, 9]])
    record = study_record(
        StudyCounts("s", "p", np.array([True, True, False]), counts, np.array([[1.5, 2.0], [0.3, 0.0], [0, np.nan]]))
    )
    assert record["WT"]["dice"] == pytest.approx(60 / 90)
    assert record["WT"]["iou"] == pytest.approx(30 / 60)
    assert (record["TC"]["dice"], record["TC"]["iou"], record["TC"]["false_positive"]) == (None, None, True)
    assert (record["ET"]["dice"], record["ET"]["known"], record["ET"]["false_positive"]) == (None, False, False)
    assert record["ET"]["reference_ml"] is None


def test_well_calibrated_logits_are_left_nearly_alone() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 3000).astype(np.float32)
    truth = (rng.random(3000) < sigmoid(logits)).astype(np.float32)
    fitted = fit_temperature(logits, truth, [f"p{at % 15}" for at in range(3000)], 5)
    assert fitted.temperature == pytest.approx(1.0, abs=0.1)
    assert fitted.kept is (fitted.nll_after < fitted.nll_before - 1e-6)


def test_a_temperature_that_does_not_help_others_is_dropped() -> None:
    """Confident and right for one patient, confident and half wrong for the other: each misleads the other."""
    logits = np.array([4.0, -4.0] * 200, dtype=np.float32)
    right = np.array([1.0, 0.0] * 100, dtype=np.float32)
    wrong = right.copy()
    wrong[::5] = 1 - wrong[::5]
    fitted = fit_temperature(logits, np.concatenate([right, wrong]), ["a"] * 200 + ["b"] * 200, 2)
    assert fitted.nll_after > fitted.nll_before
    assert (fitted.temperature, fitted.kept) == (1.0, False)
    assert "did not help, not applied" in fitted.reason


@pytest.mark.parametrize(
    ("truth", "groups", "said"),
    [
        ([1, 1, 1, 1], "abcd", "one class only"),
        ([0, 1, 0, 1], "aaaa", "too few patients"),
        ([], "", "too few patients"),
    ],
)
def test_a_temperature_that_cannot_be_fitted(truth: list[int], groups: str, said: str) -> None:
    logits = np.linspace(-1, 1, len(truth)).astype(np.float32)
    fitted = fit_temperature(logits, np.array(truth, dtype=np.float32), list(groups), 5)
    assert (fitted.temperature, fitted.kept) == (1.0, False)
    assert said in fitted.reason


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_the_sensitivity_rule_reaches_its_target(target: float) -> None:
    """And the next higher score would not."""
    rng = np.random.default_rng(2)
    probability = rng.random(300).astype(np.float32)
    truth = (rng.random(300) < probability).astype(np.float32)
    config = CalibrateConfig(threshold_rule="sensitivity", target_sensitivity=target)
    value = choose_threshold(probability, truth, config).value
    positive = probability[truth == 1]
    assert (positive >= value).mean() >= target
    higher = positive[positive >= value].min()
    assert (positive > higher).mean() < target


def test_the_threshold_with_one_class_is_the_default() -> None:
    made = choose_threshold(np.array([0.2, 0.9], dtype=np.float32), np.ones(2, dtype=np.float32), CalibrateConfig())
    assert made.value == 0.5
    assert "one class" in made.rule


def metrics_for_gate(**values: float | None) -> dict[str, Any]:
    figures = {name: {"value": values.get(name)} for name in ("roc_auc", "sensitivity", "ece")}
    dice = {"value": values.get("dice")}
    return {"classification": {"slice": {"figures": figures}}, "segmentation": {"WT": {"dice": dice}}}


def test_the_gate_names_every_criterion() -> None:
    gate = GateConfig(min_roc_auc=0.8, min_sensitivity=0.9, min_dice_wt=0.5, max_ece=0.1)
    verdict = judge(metrics_for_gate(roc_auc=0.8, sensitivity=0.5, ece=0.2), gate)
    assert [criterion["passed"] for criterion in verdict["criteria"]] == [True, False, None, False]
    assert verdict["reasons"] == [
        "sensitivity (slices) is 0.500, at least 0.9 is wanted",
        "ECE (slices) is 0.200, at most 0.1 is wanted",
    ]
    assert verdict["passed"] is False


def test_the_gate_with_nothing_to_judge() -> None:
    undefined = judge(metrics_for_gate(), GateConfig(min_roc_auc=0.1, max_ece=1.0))
    assert undefined["passed"] is False
    assert "none of the gate's figures is defined" in undefined["reasons"][0]
    assert judge(metrics_for_gate(), GateConfig()) == {"passed": True, "criteria": [], "reasons": []}


def texts(metrics: dict[str, Any]) -> list[str]:
    """Every figure of the metrics as the report prints it."""
    shown = [interval(figure) for figure in metrics["classification"]["slice"]["figures"].values()]
    shown += [interval(figure) for figure in metrics["classification"]["patient"]["figures"].values()]
    shown += [interval(row[name]) for row in metrics["segmentation"].values() for name in ("dice", "iou")]
    for part in (metrics["validation"], metrics["test_calibration"]):
        shown += [f"{part['before'][k]:.4f} → {part['after'][k]:.4f}" for k in ("ece", "brier", "nll")]
    for study in metrics["studies"]:
        shown += [f"{study[r]['dice']:.3f}" for r in ("WT", "TC", "ET") if study[r]["dice"] is not None]
    shown += [short(metrics["segmentation"]["WT"]["dice"]), metrics["data_digest"][:16]]
    return shown + [reason["name"] for reason in metrics["verdict"]["criteria"]]


def test_the_page_shows_the_figures_of_metrics_json_and_no_others(small_run: SmallRun) -> None:
    """All numbers come from the file: what is shown is there, and changing the file changes the page."""
    metrics = read_json(small_run.evaluation / "metrics.json")
    assert metrics == small_run.metrics
    page = (small_run.evaluation / "report.html").read_text(encoding="utf-8")
    missing = [text for text in texts(metrics) if text not in page]
    assert not missing
    assert page.count("<img") == page.count('src="data:image/png;base64,') >= 4
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


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


HOSTILE = '"><img src=x onerror=alert(1)>'


def test_a_hostile_study_name_stays_text(small_run: SmallRun, tmp_path: Path) -> None:
    studies = [study | {"source": HOSTILE} for study in small_run.metrics["studies"]]
    metrics = small_run.metrics | {"studies": studies, "sources": [HOSTILE]}
    page = write_report(small_run.data.store.folder, small_run.weights, MODEL, metrics, tmp_path).read_text("utf-8")
    assert "onerror=alert(1)&gt;" in page
    assert "<img src=x" not in page


def test_a_report_without_any_known_class(small_run: SmallRun, tmp_path: Path) -> None:
    """A test split of unlabelled studies: nothing to judge, and the page says so."""
    empty = classification_report(np.zeros(0, np.float32), np.zeros(0, np.float32), [], 0.5, CONFIG)
    metrics = small_run.metrics | {
        "classification": {"slice": empty, "patient": empty},
        "test_calibration": {},
        "validation": {"n": 0},
    }
    page = write_report(small_run.data.store.folder, small_run.weights, MODEL, metrics, tmp_path).read_text("utf-8")
    assert "No test slice has a known class" in page
    assert "–" in model_card(metrics, "x", ("flair",))


def test_best_median_and_worst() -> None:
    def record(name: str, dice: float | None) -> dict[str, Any]:
        return {"study": name, "WT": {"dice": dice}}

    def picked(*values: float | None) -> list[tuple[str, str]]:
        records = [record(f"s{at}", value) for at, value in enumerate(values)]
        return [(name, found["study"]) for name, found in pick_studies(records)]

    assert picked(0.2, 0.9, None, 0.5) == [("best", "s1"), ("median", "s3"), ("worst", "s0")]
    assert picked(0.2) == [("worst", "s0")]
    assert picked(None) == []


def test_the_overlays_name_their_studies(small_run: SmallRun) -> None:
    pictures = draw_overlays(small_run.data.store.folder, small_run.weights, MODEL, small_run.metrics)
    scored = [study for study in small_run.metrics["studies"] if study["WT"]["dice"] is not None]
    assert len(pictures) == min(3, len(scored)) >= 1
    for picture in pictures:
        assert any(study["study"] in picture.title for study in scored)


def test_overlays_of_a_model_without_flair(small_run: SmallRun, tmp_path: Path) -> None:
    store = small_run.data.store
    index = store.index.model_copy(
        update={"preprocessing": SliceConfig(size=48, modalities=("t1", "t2"), unknown_modality="t1")}
    )
    for key in store.studies:
        (tmp_path / "store" / "studies" / key).mkdir(parents=True)
        np.save(tmp_path / "store" / "studies" / key / "image.npy", store.images(key)[:, [1, 3]])
        np.save(tmp_path / "store" / "studies" / key / "label.npy", store.labels(key))
    write_json(tmp_path / "store" / INDEX, index.model_dump(mode="json"))
    save_file(MultiTaskUNet(2, MODEL).state_dict(), tmp_path / WEIGHTS)
    assert draw_overlays(tmp_path / "store", tmp_path, MODEL, small_run.metrics)
