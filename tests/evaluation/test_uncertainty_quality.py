"""The quality of uncertainty, against scikit-learn, naive loops and the QU-BraTS formulas written out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_auc_score

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.errors import InputError
from slicewise.evaluation.outcomes import count_outcomes
from slicewise.evaluation.qu_brats import THRESHOLDS, qu_brats
from slicewise.evaluation.retention import RETAINED, auroc_of_counts, ideal_curve, retention_curve
from slicewise.evaluation.uncertainty_quality import (
    FIGURES,
    SliceScores,
    uncertainty_of_study,
    uncertainty_section,
    without_curves,
)
from slicewise.inference.uncertainty import Uncertainty

LN2 = np.log(2)
CONFIG = EvaluateConfig(bootstrap=100)


def study(seed: int, regions: int = 3, noise: float = 0.2) -> tuple[np.ndarray, ...]:
    """Uncertainty, prediction, reference ``[regions, 6, 20, 20]`` and head ``[6, 20, 20]``."""
    rng = np.random.default_rng(seed)
    shape = (regions, 6, 20, 20)
    rows, columns = np.mgrid[:20, :20] - 9.5
    head = np.broadcast_to(rows**2 + columns**2 < 80, shape[1:]).copy()
    reference = np.broadcast_to((rows - 2) ** 2 + columns**2 < 16, shape) & head
    predicted = (reference ^ (rng.random(shape) < noise)) & head
    uncertainty = (rng.beta(1, 3, shape) * LN2 * np.where(predicted ^ reference, 1.0, 0.6)).astype(np.float16) * head
    return uncertainty, predicted, reference, head


def qu_brats_written_out(
    uncertainty: np.ndarray, predicted: np.ndarray, reference: np.ndarray, head: np.ndarray
) -> tuple[list[float], ...]:
    """The paper's definitions, voxel arrays and one threshold at a time, as in the challenge's evaluation code."""
    percent = np.minimum(100 * uncertainty.astype(np.float64) / LN2, 100)
    dice, ftp, ftn = [], [], []
    true_positive = (predicted & reference & head).sum()
    true_negative = (~predicted & ~reference & head).sum()
    for threshold in np.linspace(0, 100, 41):
        certain = ~(percent > threshold)
        both = (predicted & reference & certain).sum()
        size = (predicted & certain).sum() + (reference & certain).sum()
        dice.append(1.0 if size == 0 else 2 * both / size)
        left = (predicted & reference & head & certain).sum()
        ftp.append((true_positive - left) / true_positive if true_positive else 0.0)
        left = (~predicted & ~reference & head & certain).sum()
        ftn.append((true_negative - left) / true_negative if true_negative else 0.0)
    return dice, ftp, ftn


def outcomes_of(uncertainty: np.ndarray, predicted: np.ndarray, reference: np.ndarray, head: np.ndarray):  # type: ignore[no-untyped-def]
    return count_outcomes(uncertainty, predicted, reference, np.flatnonzero(head))


# QU-BraTS.


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.4, 1.0])
def test_qu_brats_is_the_papers(seed: int, noise: float) -> None:
    uncertainty, predicted, reference, head = (
        array[0] if array.ndim == 4 else array for array in study(seed, 1, noise)
    )
    found = qu_brats(outcomes_of(uncertainty, predicted, reference, head))
    dice, ftp, ftn = qu_brats_written_out(uncertainty, predicted, reference, head)
    assert found is not None
    np.testing.assert_allclose(found.dice, dice, atol=1e-12)
    np.testing.assert_allclose(found.ftp, ftp, atol=1e-12)
    np.testing.assert_allclose(found.ftn, ftn, atol=1e-12)
    areas = [auc(np.linspace(0, 100, 41), curve) / 100 for curve in (dice, ftp, ftn)]
    assert (found.dice_auc, found.ftp_auc, found.ftn_auc) == pytest.approx(areas, abs=1e-12)
    assert found.score == pytest.approx((areas[0] + (1 - areas[1]) + (1 - areas[2])) / 3, abs=1e-12)


def test_qu_brats_by_hand() -> None:
    """Four voxels: TP of 10 %, FP of 50 %, FN of 90 %, TN of 30 %."""
    uncertainty = np.array([0.1, 0.5, 0.9, 0.3]).reshape(1, 1, 4) * LN2
    predicted = np.array([1, 1, 0, 0], dtype=bool).reshape(1, 1, 4)
    reference = np.array([1, 0, 1, 0], dtype=bool).reshape(1, 1, 4)
    found = qu_brats(outcomes_of(uncertainty, predicted, reference, np.ones((1, 1, 4), dtype=bool)))
    at = dict(zip(THRESHOLDS, zip(found.dice, found.ftp, found.ftn, strict=True), strict=True))
    assert at[0.0] == (1.0, 1.0, 1.0)  # all filtered out: the challenge calls an empty Dice 1
    assert at[20.0] == (1.0, 0.0, 1.0)  # the true positive is left
    assert at[40.0] == (1.0, 0.0, 0.0)
    assert at[60.0] == (pytest.approx(2 / 3), 0.0, 0.0)  # with the false positive: 2 / (2 + 1)
    assert at[100.0] == (0.5, 0.0, 0.0)  # with the missed one: 2 / (2 + 2)
    assert len(THRESHOLDS) == 41


def test_a_certain_and_right_segmentation_scores_one() -> None:
    _, _, reference, head = study(0)
    record = uncertainty_of_study(np.zeros(reference.shape), reference, reference, head)
    assert record["qu_brats"] == 1.0
    assert record["WT"]["dice_auc"] == 1.0
    # With nothing wrong there is nothing to detect.
    assert record["WT"]["auroc"] is None
    assert record["WT"]["rejection_ratio"] is None
    assert record["WT"]["errors"] == 0


def test_reference_outside_the_head_was_missed_for_certain() -> None:
    uncertainty, predicted, reference, head = (array[0] if array.ndim == 4 else array for array in study(1, 1))
    reference = reference | (np.indices(head.shape)[1] == 0)  # a row far outside
    outcomes = outcomes_of(uncertainty, predicted, reference, head)
    assert outcomes.wrong[0] >= 6 * 20
    found = qu_brats(outcomes)
    np.testing.assert_allclose(found.dice, qu_brats_written_out(uncertainty, predicted, reference, head)[0])


# AUROC.


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_scikit_learns(seed: int) -> None:
    uncertainty, predicted, reference, head = study(seed)
    record = uncertainty_of_study(uncertainty, predicted, reference, head)
    for index, name in enumerate(REGIONS):
        wrong = (predicted ^ reference)[index][head]
        assert record[name]["auroc"] == pytest.approx(roc_auc_score(wrong, uncertainty[index][head]), abs=1e-12)
        assert record[name]["error_rate"] == pytest.approx(wrong.mean())
        assert record[name]["errors"] == wrong.sum()


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60))
def test_auroc_of_counts_is_scikit_learns_with_ties(items: list[tuple[int, bool]]) -> None:
    values, wrong = (np.array(column) for column in zip(*items, strict=True))
    counts = [np.bincount(values[part], minlength=10).astype(float) for part in (wrong, ~wrong)]
    found = float(auroc_of_counts(*counts))
    if len(set(wrong)) < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(wrong, values))


# Retention.


def retention_written_out(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The error when the n least uncertain voxels are kept, for every n; ties in the mean of both orders."""
    orders = [np.lexsort((sign * wrong, uncertainty)) for sign in (1, -1)]
    curves = []
    for order in orders:
        errors = [0.0]
        for voxel in order:
            errors.append(errors[-1] + float(wrong[voxel]))
        curves.append(np.array(errors) / len(wrong))
    return np.arange(len(wrong) + 1) / len(wrong), np.mean(curves, axis=0)


def counts_of(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    levels, level = np.unique(uncertainty, return_inverse=True)
    return tuple(np.bincount(level[part], minlength=len(levels)).astype(float) for part in (wrong, ~wrong))  # type: ignore[return-value]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 300))
def test_retention_is_the_naive_loops(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    uncertainty, wrong = rng.permutation(n) / n, rng.random(n) < 0.2
    curve = retention_curve(*counts_of(uncertainty, wrong))
    shares, errors = retention_written_out(uncertainty, wrong)
    assert curve is not None
    assert curve.area == pytest.approx(np.trapezoid(errors, shares), abs=1e-12)
    np.testing.assert_allclose(curve.error, np.interp(RETAINED, shares, errors), atol=1e-12)


def test_ties_are_handed_over_in_random_order() -> None:
    """The mean over many random orders of a map with four levels."""
    rng = np.random.default_rng(0)
    uncertainty, wrong = rng.integers(0, 4, 400) / 4, rng.random(400) < 0.3
    curve = retention_curve(*counts_of(uncertainty, wrong))
    areas = []
    for _ in range(300):
        shuffled = uncertainty + rng.random(400) * 1e-3
        shares, errors = retention_written_out(shuffled, wrong)
        areas.append(np.trapezoid(errors, shares))
    assert curve.area == pytest.approx(np.mean(areas), abs=3 * np.std(areas) / np.sqrt(300))


def test_retention_by_hand() -> None:
    """Ten voxels, two wrong. Ideal: both most uncertain. Worst: both least uncertain."""
    wrong = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1], dtype=bool)
    ideal, worst = (retention_curve(*counts_of(np.arange(10.0)[::step], wrong)) for step in (1, -1))
    # Triangle from 0.8 to 1 of height 0.2; and 0.2 everywhere but for a triangle less.
    assert (ideal.area, ideal.random, ideal.ideal) == pytest.approx((0.02, 0.1, 0.02))
    assert ideal.rejection_ratio == pytest.approx(1.0)
    assert worst.area == pytest.approx(0.18)
    assert worst.rejection_ratio == pytest.approx(-1.0)
    assert ideal.error == pytest.approx(ideal_curve(0.2))
    constant = retention_curve(*counts_of(np.zeros(10), wrong))
    assert constant.rejection_ratio == pytest.approx(0.0)
    assert constant.area == pytest.approx(0.1)
    assert (RETAINED[0], RETAINED[-1]) == (0.0, 1.0)


# A study.


def test_float32_counts_as_its_float16() -> None:
    uncertainty, predicted, reference, head = study(2)
    wide = uncertainty.astype(np.float64) * (1 + 1e-5)
    assert uncertainty_of_study(wide, predicted, reference, head) == uncertainty_of_study(
        uncertainty, predicted, reference, head
    )


def test_one_region_without_its_axis_is_the_whole_tumour() -> None:
    uncertainty, predicted, reference, head = study(3)
    alone = uncertainty_of_study(uncertainty[0], predicted[0], reference[0], head)
    together = uncertainty_of_study(uncertainty, predicted, reference, head)
    assert alone["WT"] == together["WT"]
    assert set(alone) == {"WT", "qu_brats"}
    assert alone["qu_brats"] == alone["WT"]["qu_brats"]
    assert together["qu_brats"] == pytest.approx(np.mean([together[name]["qu_brats"] for name in REGIONS]))


def test_unknown_and_empty_regions_are_undefined_not_scored() -> None:
    uncertainty, predicted, reference, head = study(4)
    reference[1] = False
    record = uncertainty_of_study(uncertainty, predicted, reference, head, np.array([True, True, False]))
    assert record["ET"] is None
    assert record["TC"]["qu_brats"] is record["TC"]["dice_auc"] is None
    assert 0 < record["TC"]["auroc"] < 1  # its false positives can be detected all the same
    assert record["qu_brats"] == record["WT"]["qu_brats"]


def test_a_study_without_head_or_tumour() -> None:
    nothing = np.zeros((3, 2, 4, 4), dtype=bool)
    headless = uncertainty_of_study(nothing.astype(np.float16), nothing, nothing, nothing[0])
    assert headless["qu_brats"] is None
    assert all(headless["WT"][name] is None for name in FIGURES)
    healthy = uncertainty_of_study(nothing.astype(np.float16), nothing, nothing, ~nothing[0])
    assert healthy["WT"]["error_rate"] == 0
    assert healthy["WT"]["qu_brats"] is None
    section = uncertainty_section([headless, healthy], ["a", "b"], None, CONFIG)
    json.dumps(section, allow_nan=False)
    assert section["qu_brats"]["value"] is None
    assert section["slices"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 0.7])
def test_what_is_no_entropy_is_refused(value: float) -> None:
    uncertainty, predicted, reference, head = study(0)
    uncertainty[0][head] = value
    with pytest.raises(InputError, match="uncertainty"):
        uncertainty_of_study(uncertainty, predicted, reference, head)


def test_the_ends_of_the_range_are_fine() -> None:
    uncertainty, predicted, reference, head = (array[0] if array.ndim == 4 else array for array in study(0, 1))
    uncertainty = np.where(predicted ^ reference, np.float32(LN2), np.float32(-0.0))
    outcomes = outcomes_of(uncertainty, predicted, reference, head)
    assert outcomes.percent.tolist() == [0.0, 100.0]
    assert outcomes.wrong[0] == outcomes.right[1] == 0


# The section.


def slice_scores(seed: int, n: int = 200) -> SliceScores:
    rng = np.random.default_rng(seed)
    samples = rng.random((6, n)).astype(np.float32)
    measures = Uncertainty.of_samples(samples, np.full(6, 1 / 6, dtype=np.float32))
    wrong = rng.random(n) < 0.1 + 0.6 * (measures.mutual_information > 0.15)
    return SliceScores(measures, wrong, [f"p{at % 9}" for at in range(n)])


def section_of(n: int = 4) -> tuple[list[dict[str, Any]], dict[str, Any], SliceScores]:
    records = [uncertainty_of_study(*study(seed)) for seed in range(n)]
    slices = slice_scores(0)
    return records, uncertainty_section(records, [f"p{at // 2}" for at in range(n)], slices, CONFIG), slices


def test_the_section_averages_studies_then_patients() -> None:
    records, section, _ = section_of(3)  # two of p0, one of p1
    for name in FIGURES:
        values = [record["TC"][name] for record in records]
        expected = np.mean([np.mean(values[:2]), values[2]])
        figure = section["regions"]["TC"][name]
        assert figure["value"] == pytest.approx(expected)
        assert figure["n"] == 2
        assert figure["low"] <= figure["value"] <= figure["high"]
    curve = section["regions"]["TC"]["curves"]
    errors = [record["TC"]["curves"]["error"] for record in records]
    expected = np.mean([np.mean(errors[:2], axis=0), errors[2]], axis=0)
    np.testing.assert_allclose(curve["error"], expected)
    assert len(curve["retained"]) == len(curve["error"]) == len(curve["random"]) == len(curve["ideal"])
    assert len(curve["threshold"]) == len(curve["dice"]) == len(curve["ftp"]) == len(curve["ftn"]) == 41
    json.dumps(section, allow_nan=False)


def test_the_slices_auroc_is_scikit_learns() -> None:
    _, section, slices = section_of()
    for name in ("predictive_entropy", "mutual_information", "expected_entropy"):
        figure = section["slices"]["auroc"][name]
        assert figure["value"] == pytest.approx(roc_auc_score(slices.wrong, getattr(slices.uncertainty, name)))
        assert figure["low"] < figure["value"] < figure["high"]
        assert figure["n"] == 9
    assert section["slices"]["n_wrong"] == slices.wrong.sum()
    assert section["slices"]["varies"] is True


@pytest.mark.parametrize("wrong", [False, True])
def test_slices_of_one_kind_have_no_auroc(wrong: bool) -> None:
    slices = slice_scores(0)
    section = uncertainty_section(
        [], [], SliceScores(slices.uncertainty, np.full(len(slices.wrong), wrong), slices.groups), CONFIG
    )
    assert section["slices"]["auroc"]["predictive_entropy"]["value"] is None
    assert section["regions"] == {}
    json.dumps(section, allow_nan=False)


def test_no_slices_and_one_patient() -> None:
    none = np.zeros((3, 0), dtype=np.float32)
    empty = Uncertainty.of_samples(none, np.full(3, 1 / 3, dtype=np.float32))
    section = uncertainty_section(
        [uncertainty_of_study(*study(0))], ["p0"], SliceScores(empty, np.zeros(0, dtype=bool), []), CONFIG
    )
    assert section["slices"]["n"] == 0
    assert section["slices"]["varies"] is False
    figure = section["regions"]["WT"]["auroc"]
    assert figure["value"] is not None
    assert figure["low"] is None
    json.dumps(section, allow_nan=False)


def test_samples_that_never_differ_are_told() -> None:
    same = np.full((4, 10), 0.3, dtype=np.float32)
    measures = Uncertainty.of_samples(same, np.full(4, 0.25, dtype=np.float32))
    section = uncertainty_section([], [], SliceScores(measures, np.arange(10) < 3, ["a"] * 10), CONFIG)
    assert section["slices"]["varies"] is False
    assert section["slices"]["auroc"]["mutual_information"]["value"] == pytest.approx(0.5)


def test_a_studys_record_without_curves_keeps_its_figures() -> None:
    record = uncertainty_of_study(*study(0), np.array([True, True, False]))
    short = without_curves(record)
    assert short["WT"]["auroc"] == record["WT"]["auroc"]
    assert "curves" not in short["WT"]
    assert short["ET"] is None
    assert short["qu_brats"] == record["qu_brats"]
