"""All figures of a region against other libraries and by hand, every empty case, and their means over patients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_volumes import MISTAKES, REAL, Mask, Spacing, phantom_regions, real_regions, with_mistake
from monai.metrics import compute_dice, compute_iou
from sklearn.metrics import f1_score, jaccard_score, recall_score

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.overlap import IN_MM, region_figures, study_figures
from slicewise.evaluation.segmentation import FIGURES, mean_figure, segmentation_report

CONFIG = EvaluateConfig(bootstrap=100)
UNIT: Spacing = (1.0, 1.0, 1.0)
PAIR = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
)


def check_overlap(predicted: Mask, reference: Mask, spacing: Spacing) -> None:
    """Against scikit-learn's confusion within a head, and MONAI's Dice and IoU."""
    head = np.ones_like(reference)
    head[:, :4] = False
    head |= reference
    found = region_figures(predicted, reference, spacing, head)
    truth, said = reference.ravel(), predicted.ravel()
    inside = head.ravel()
    expected = {
        "dice": f1_score(truth, said),
        "iou": jaccard_score(truth, said),
        "sensitivity": recall_score(truth, said),
        "specificity": recall_score(truth[inside], said[inside], pos_label=False),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    assert found["dice"] == pytest.approx(float(compute_dice(*pair)), rel=1e-5)
    assert found["iou"] == pytest.approx(float(compute_iou(*pair)), rel=1e-5)
    voxel = np.prod(spacing) / 1000
    assert found["volume_error_ml"] == pytest.approx((said.sum() - float(truth.sum())) * voxel)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("region", REGIONS)
def test_phantoms_agree_with_other_libraries(region: str, mistake: str) -> None:
    regions, spacing = phantom_regions()
    check_overlap(with_mistake(regions[region], mistake), regions[region], spacing)


@pytest.mark.parametrize("name", REAL)
def test_real_scans_agree_with_other_libraries(shared_data: Path, name: str) -> None:
    regions, spacing = real_regions(shared_data, name)
    check_overlap(with_mistake(regions["TC"], "shifted"), regions["TC"], spacing)


def test_figures_by_hand() -> None:
    """Reference 2 voxels, prediction 3, one in both, in a head of 8 of the frame's 12 voxels; 0.5 ml each."""
    reference, predicted = np.zeros((2, 2, 3, 4), dtype=np.bool_)[:, :1]
    reference[0, 0, :2] = True
    predicted[0, 0, 1:4] = True
    head = np.zeros_like(reference)
    head[0, :2] = True
    found = region_figures(predicted, reference, (5.0, 10.0, 10.0), head)
    expected = {
        "dice": 2 / 5,
        "iou": 1 / 4,
        "sensitivity": 1 / 2,
        "specificity": 4 / 6,
        "predicted_ml": 1.5,
        "reference_ml": 1.0,
        "volume_error_ml": 0.5,
        "volume_abs_error_ml": 0.5,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert region_figures(predicted, reference, UNIT)["specificity"] == pytest.approx(8 / 10)


UNDEFINED_WITHOUT_REFERENCE = ("dice", "iou", "sensitivity", "hd95_mm", "assd_mm")


@pytest.mark.parametrize(
    ("predicted", "reference", "expected"),
    [
        (0, 0, dict.fromkeys(UNDEFINED_WITHOUT_REFERENCE) | {"lesion_dice": None, "lesion_hd95_mm": None}),
        (1, 0, dict.fromkeys(UNDEFINED_WITHOUT_REFERENCE) | {"lesion_dice": 0.0, "lesion_hd95_mm": 374.0}),
        (0, 1, {"dice": 0.0, "iou": 0.0, "sensitivity": 0.0, "hd95_mm": None, "assd_mm": None, "lesion_dice": 0.0}),
        (1, 1, {"dice": 1.0, "iou": 1.0, "sensitivity": 1.0, "hd95_mm": 0.0, "assd_mm": 0.0, "lesion_dice": 1.0}),
    ],
)
def test_every_empty_case(predicted: int, reference: int, expected: dict[str, Any]) -> None:
    block = np.zeros((6, 6, 6), dtype=np.bool_)
    block[1:5, 1:5, 1:5] = True
    found = region_figures(block & bool(predicted), block & bool(reference), UNIT)
    assert {name: found[name] for name in expected} == expected
    assert found["empty_reference"] is not bool(reference)
    assert found["false_positive"] is (predicted > reference)
    assert found["specificity"] == (1.0 if predicted <= reference else pytest.approx(1 - 64 / 216))
    assert found["volume_error_ml"] == pytest.approx((predicted - reference) * 0.064)
    json.dumps(found, allow_nan=False)


def test_all_full_has_no_negatives() -> None:
    full = np.ones((3, 3, 3), dtype=np.bool_)
    found = region_figures(full, full, UNIT)
    assert (found["dice"], found["specificity"], found["hd95_mm"]) == (1.0, None, 0.0)


def test_an_unknown_region_has_a_predicted_volume_only() -> None:
    found = region_figures(np.ones((2, 3, 4), dtype=np.bool_), None, UNIT)
    assert found.pop("predicted_ml") == pytest.approx(0.024)
    assert found == dict.fromkeys(found) | {"known": False, "empty_reference": False, "false_positive": False}


def test_without_spacing_nothing_is_told_in_mm_or_ml() -> None:
    mask = np.ones((2, 3, 4), dtype=np.bool_)
    found = region_figures(mask, mask, None)
    assert found["dice"] == 1.0
    assert all(found[name] is None for name in IN_MM)


def test_wrong_arguments_are_named() -> None:
    mask = np.ones((2, 3, 4), dtype=np.bool_)
    with pytest.raises(ValueError, match=r"different shapes.*\(2, 3, 4\), \(2, 3, 3\)"):
        region_figures(mask, mask[:, :, :3], UNIT)
    with pytest.raises(ValueError, match="spacing_mm must be three positive numbers"):
        region_figures(mask, mask, (1.0, 0.0, 1.0))


@settings(max_examples=60)
@given(PAIR)
def test_shares_symmetry_and_perfection(pair: tuple[Mask, Mask]) -> None:
    """Dice is 1 for equal masks only, symmetric, and twice IoU over one more; padding changes nothing."""
    predicted, reference = pair
    found = region_figures(predicted, reference, UNIT)
    assert (found["dice"] is None) == (not reference.any())
    assert (found["dice"] == 1) == (reference.any() and bool((predicted == reference).all()))
    if found["dice"] is not None:
        assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))
        assert 0 <= found["sensitivity"] <= 1
    if reference.any() and predicted.any():
        swapped = region_figures(reference, predicted, UNIT)
        assert swapped["dice"] == found["dice"]
        assert swapped["volume_error_ml"] == pytest.approx(-found["volume_error_ml"])
    padded = region_figures(np.pad(predicted, 1)[:, ::-1], np.pad(reference, 1)[:, ::-1], UNIT)
    for name in set(found) - {"specificity", "lesion_dice", "lesion_hd95_mm", "lesions"}:
        assert padded[name] == (found[name] if found[name] is None else pytest.approx(found[name], abs=1e-9)), name


def record(patient: str, **masks: tuple[int, int]) -> dict[str, Any]:
    """A study of 4³ voxels; each region's predicted and reference voxels, of 64; a region left out is unknown."""
    pairs = {name: masks.get(name, (0, 0)) for name in REGIONS}
    volumes = np.zeros((2, 3, 64), dtype=np.bool_)
    for at, (predicted, reference) in enumerate(pairs.values()):
        volumes[0, at, :predicted] = volumes[1, at, :reference] = True
    predicted, reference = volumes.reshape(2, 3, 4, 4, 4)
    known = np.array([name in masks for name in REGIONS])
    return {"study": patient, "patient": patient, **study_figures(predicted, reference, known, (2.0, 2.0, 2.0))}


def test_report_leaves_out_what_is_undefined_and_counts_false_positives() -> None:
    records = [
        record("a", WT=(32, 32), TC=(16, 0), ET=(0, 0)),
        record("b", WT=(16, 32), TC=(0, 0), ET=(32, 64)),
        record("c", WT=(32, 64)),
    ]
    report = segmentation_report(records, CONFIG)
    whole, core, enhancing = (report[name] for name in REGIONS)
    assert whole["dice"]["value"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert whole["dice"]["n"] == whole["n_scored"] == 3
    assert whole["volume_error_ml"]["value"] == pytest.approx((0 - 0.128 - 0.256) / 3)
    assert whole["volume_abs_error_ml"]["value"] == pytest.approx((0.128 + 0.256) / 3)
    assert core["dice"] == {"value": None, "low": None, "high": None, "n": 0}
    assert (core["n_scored"], core["n_unknown"], core["n_empty_reference"], core["n_false_positive"]) == (0, 1, 2, 1)
    assert (core["lesion_dice"]["value"], core["lesion_hd95_mm"]["value"]) == (0.0, 374.0)
    assert core["lesions"]["false_positive"] == 1
    assert (enhancing["n_scored"], enhancing["n_empty_reference"], enhancing["n_false_positive"]) == (1, 1, 0)
    assert set(FIGURES) < set(whole)
    json.dumps(report, allow_nan=False)


def test_lesion_counts_are_summed_over_studies_before_their_f1() -> None:
    report = segmentation_report([record("a", WT=(32, 32)), record("b", WT=(0, 32))], CONFIG)["WT"]
    lesions = report["lesions"]
    assert (lesions["reference"], lesions["predicted"], lesions["true_positive"], lesions["false_negative"]) == (
        2,
        1,
        1,
        1,
    )
    assert lesions["f1"] == pytest.approx(2 / 3)
    assert segmentation_report([], CONFIG)["WT"]["lesions"]["f1"] is None


def test_the_mean_is_over_patients_with_an_interval_around_it() -> None:
    """Patient a's three studies count once."""
    records = [record("a", WT=(32, 32))] * 3 + [record("b", WT=(0, 32)), record("c", WT=(16, 32))]
    figure = mean_figure(records, "WT", "dice", CONFIG)
    assert figure.value == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert figure.n == 3
    assert figure.low is not None
    assert figure.high is not None
    assert 0 <= figure.low < figure.value < figure.high <= 1
