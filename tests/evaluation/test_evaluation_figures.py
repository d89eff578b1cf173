"""Figures against independent implementations, calibration, and the gate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, log_loss, precision_score, recall_score, roc_auc_score

from slicewise.config import REGIONS, EvaluateConfig, GateConfig
from slicewise.evaluation.classification import classification_figures, classification_report
from slicewise.evaluation.gate import judge
from slicewise.evaluation.intervals import bootstrap
from slicewise.evaluation.overlap import region_figures
from slicewise.evaluation.reliability import expected_calibration_error
from slicewise.evaluation.segmentation import segmentation_report
from slicewise.inference.calibration import sigmoid
from slicewise.training.validate import mean_dice, overlap

CONFIG = EvaluateConfig(bootstrap=200)


def sample(n: int = 400, seed: int = 0, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and outcomes drawn from them; ``scale`` makes the logits over-confident."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, n)
    truth = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return (logits * scale).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(4))
def test_classification_figures_equal_scikit_learns(seed: int) -> None:
    logits, truth = sample(seed=seed)
    p = sigmoid(logits)
    figures = classification_figures(p, truth, [str(at) for at in range(len(p))], 0.4, CONFIG)
    found = {name: figure.value for name, figure in figures.items()}
    said = p >= 0.4
    assert found["sensitivity"] == pytest.approx(recall_score(truth, said))
    assert found["specificity"] == pytest.approx(recall_score(truth, said, pos_label=0))
    assert found["ppv"] == pytest.approx(precision_score(truth, said))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, p))
    assert found["brier"] == pytest.approx(brier_score_loss(truth, p), rel=1e-5)
    assert found["nll"] == pytest.approx(log_loss(truth, p.astype(float)), rel=1e-5)


def test_calibration_error_of_a_table() -> None:
    """Two bins: ten at 0.15 with two positives (gap 0.05), thirty at 0.85 with eighteen (gap 0.25)."""
    p = np.array([0.15] * 10 + [0.85] * 30)
    truth = np.array([1] * 2 + [0] * 8 + [1] * 18 + [0] * 12)
    assert expected_calibration_error(p, truth, 10) == pytest.approx((10 * 0.05 + 30 * 0.25) / 40)


def test_one_class_leaves_figures_undefined_and_not_perfect() -> None:
    found = classification_figures(np.array([0.2, 0.9]), np.array([1.0, 1.0]), ["a", "b"], 0.5, CONFIG)
    assert found["roc_auc"].value is None
    assert found["specificity"].value is None
    assert classification_report(np.zeros(0), np.zeros(0), [], 0.5, CONFIG)["n"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_dice_equals_monais(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.rand(3, 3, 16, 16, generator=generator) < 0.4
    truth = torch.rand(3, 3, 16, 16, generator=generator) < 0.3
    expected = DiceMetric(reduction="mean")
    expected(predicted.float(), truth.float())
    assert mean_dice(overlap(predicted, truth)) == pytest.approx(float(expected.aggregate()), rel=1e-5)


def record(key: str, patient: str, both: int, predicted: int, reference: int, known: bool = True) -> dict:
    """A study whose three regions all have the same counts."""
    found, truth = masks_of(both, predicted, reference)
    return {"study": key, "patient": patient} | {
        region: region_figures(found, truth if known else None, (1.0, 1.0, 1.0)) for region in REGIONS
    }


def masks_of(both: int, predicted: int, reference: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two masks in a row of voxels with these counts."""
    place = np.arange(predicted + reference - both + 1)[None, None]
    return place < predicted, (place >= predicted - both) & (place < predicted - both + reference)


def test_an_empty_reference_is_undefined_and_its_false_positive_counted() -> None:
    records = [
        record("a", "p1", 50, 100, 100),
        record("b", "p1", 100, 100, 100),
        record("c", "p2", 0, 40, 0),
        record("d", "p3", 0, 0, 0),
        record("e", "p4", 0, 9, 0, known=False),
    ]
    report = segmentation_report(records, CONFIG)["WT"]
    assert report["dice"]["value"] == pytest.approx(0.75)
    assert report["dice"]["n"] == 1
    assert (report["n_scored"], report["n_empty_reference"], report["n_false_positive"]) == (2, 2, 1)
    assert report["n_unknown"] == 1
    assert records[2]["WT"]["dice"] is None


def test_intervals_resample_patients_not_slices() -> None:
    """A thousand equal rows of two patients: the interval must span both patients' values."""
    values = np.array([0.0] * 500 + [1.0] * 500)
    figure = bootstrap(lambda rows: float(values[rows].mean()), ["a"] * 500 + ["b"] * 500, 300, 0.95)
    assert (figure.value, figure.low, figure.high, figure.n) == (0.5, 0.0, 1.0, 2)
    alone = bootstrap(lambda rows: float(values[rows].mean()), ["a"] * 1000, 300, 0.95)
    assert (alone.low, alone.high) == (None, None)


def metrics(auc: float | None, dice: float | None) -> dict:
    """Just what the gate reads."""
    figures = {"roc_auc": {"value": auc}, "ece": {"value": None}}
    return {"classification": {"slice": {"figures": figures}}, "segmentation": {"WT": {"dice": {"value": dice}}}}


@pytest.mark.parametrize(
    ("auc", "dice", "passed"),
    [(0.9, 0.8, True), (0.9, None, True), (0.7, 0.8, False), (0.9, 0.1, False), (None, None, False)],
)
def test_gate(auc: float | None, dice: float | None, passed: bool) -> None:
    verdict = judge(metrics(auc, dice), GateConfig(min_roc_auc=0.8, min_dice_wt=0.5, max_ece=0.2))
    assert verdict["passed"] is passed
    assert bool(verdict["reasons"]) is not passed
