"""Post-processing against SciPy and SimpleITK, and its choice on validation patients against trying each by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage

from slicewise.config import REGIONS
from slicewise.evaluation.overlap import count_overlap
from slicewise.evaluation.tune_postprocess import (
    MIN_SHARES,
    MIN_VOLUMES_MM3,
    PackedStudy,
    ValidationStudy,
    choose_postprocess,
)
from slicewise.inference.components3d import fill_holes
from slicewise.inference.postprocess import PostProcess, drop_small

Mask = NDArray[np.bool_]
UNIT = (1.0, 1.0, 1.0)
ALL_KNOWN = np.ones(3, dtype=np.bool_)
VOLUMES = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=7))


@settings(max_examples=60)
@given(VOLUMES)
def test_holes_are_filled_as_scipy_does(mask: Mask) -> None:
    assert (fill_holes(mask) == ndimage.binary_fill_holes(mask)).all()
    single = mask[:1]
    assert (fill_holes(single)[0] == ndimage.binary_fill_holes(single[0])).all()


@settings(max_examples=30)
@given(VOLUMES, st.integers(0, 30))
def test_small_components_are_dropped_as_simpleitk_does(mask: Mask, least: int) -> None:
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    kept = sitk.GetArrayFromImage(sitk.RelabelComponent(pieces, minimumObjectSize=least)) > 0
    assert (drop_small(mask, least) == kept).all()


@settings(max_examples=30)
@given(VOLUMES, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_components_far_smaller_than_the_largest_are_dropped(mask: Mask, share: float) -> None:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = [int((labels == number).sum()) for number in range(1, count + 1)]
    expected = np.zeros_like(mask)
    for number, size in enumerate(sizes, 1):
        if size >= share * max(sizes):
            expected |= labels == number
    assert (drop_small(mask, 0, share) == expected).all()


def blocks(*spans: tuple[slice, slice, slice], shape: tuple[int, int, int] = (6, 12, 12)) -> Mask:
    mask = np.zeros(shape, dtype=np.bool_)
    for span in spans:
        mask[span] = True
    return mask


def cube(z: int, row: int, column: int, size: int) -> tuple[slice, slice, slice]:
    return slice(z, z + size), slice(row, row + size), slice(column, column + size)


def test_nothing_is_done_by_default() -> None:
    mask = np.random.default_rng(0).random((3, 4, 5, 6)) < 0.5
    assert PostProcess().is_identity
    assert PostProcess().apply(mask, UNIT) is mask
    assert PostProcess.model_validate_json(PostProcess().model_dump_json()) == PostProcess()


def test_volume_is_in_mm3_and_per_region() -> None:
    """8 voxels of 2 × 1 × 1 mm are 16 mm³: kept at a limit of 16, dropped above."""
    mask = np.stack([blocks(cube(0, 0, 0, 2), cube(2, 5, 5, 3))] * 3)
    chosen = PostProcess(min_volume_mm3={"WT": 16.0, "TC": 16.1})
    whole, core, enhancing = chosen.apply(mask, (2.0, 1.0, 1.0)).sum(axis=(1, 2, 3))
    assert (whole, core, enhancing) == (35, 27, 35)
    assert mask.sum() == 3 * 35  # what was given is left as it was


def test_a_share_needs_no_spacing_and_is_per_region() -> None:
    """8 and 27 voxels: below a share of 0.3 of the largest both stay."""
    mask = np.stack([blocks(cube(0, 0, 0, 2), cube(2, 5, 5, 3))] * 3)
    chosen = PostProcess(min_share={"WT": 0.29, "TC": 0.3})
    for spacing in (UNIT, (5.0, 0.4, 0.4)):
        whole, core, enhancing = chosen.apply(mask, spacing).sum(axis=(1, 2, 3))
        assert (whole, core, enhancing) == (35, 27, 35)
    assert not chosen.is_identity
    assert (chosen.apply_slice(mask[:, 1]) == mask[:, 1]).all()


def test_a_limit_is_met_whatever_the_rounding() -> None:
    """1000 voxels of 0.1 mm³ are 100 mm³, although 0.1 × 1000 and 100 / 0.1 are rounded."""
    mask = np.ones((3, 10, 10, 10), dtype=np.bool_)
    assert PostProcess(min_volume_mm3={"WT": 100.0}).apply(mask, (0.1, 1.0, 1.0))[0].all()


def test_steps_run_in_order_holes_then_components_then_nesting() -> None:
    """A shell of 26 voxels becomes a cube of 27 and stays; TC outside of WT goes, also where WT was dropped."""
    shell = blocks(cube(0, 0, 0, 3))
    shell[1, 1, 1] = False
    speck = blocks(cube(3, 8, 8, 2))
    chosen = PostProcess(min_volume_mm3={"WT": 27.0}, fill_holes=True, hierarchy=True)
    whole, core, enhancing = chosen.apply(np.stack([shell | speck, speck | blocks(cube(1, 1, 1, 1)), speck]), UNIT)
    assert whole.sum() == 27
    assert (core.sum(), core[1, 1, 1]) == (1, True)
    assert not enhancing.any()


@settings(max_examples=30)
@given(hnp.arrays(np.bool_, (3, 3, 5, 6)), st.booleans(), st.sampled_from([0.0, 2.0, 9.0]))
def test_nested_within_what_was_there_and_stable(mask: NDArray[Any], holes: bool, volume: float) -> None:
    chosen = PostProcess(min_volume_mm3=dict.fromkeys(REGIONS, volume), fill_holes=holes, hierarchy=True)
    whole, core, enhancing = chosen.apply(mask, UNIT)
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()
    if not holes:
        assert not (np.stack([whole, core, enhancing]) & ~mask).any()
    flipped = chosen.apply(mask[:, ::-1, :, ::-1], UNIT)
    assert (flipped[:, ::-1, :, ::-1] == np.stack([whole, core, enhancing])).all()


def test_a_single_slice_keeps_its_specks() -> None:
    ring = blocks(cube(0, 0, 0, 5))[0]
    ring[2, 2] = False
    ring[8, 8] = True
    mask = np.stack([ring, ring, ring])
    chosen = PostProcess(min_volume_mm3=dict.fromkeys(REGIONS, 1e6), fill_holes=True, hierarchy=True)
    processed = chosen.apply_slice(mask)
    assert processed.shape == mask.shape
    assert processed[0, 2, 2]
    assert processed[0, 8, 8]
    assert (chosen.apply(mask[:, None], UNIT)[:, 0] == processed).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_volume_mm3": {"NCR": 5}},
        {"min_volume_mm3": {"WT": -1}},
        {"min_volume_mm3": {"WT": np.nan}},
        {"min_share": {"WT": 1.1}},
        {"min_share": {"NCR": 0.5}},
        {"holes": True},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PostProcess.model_validate(wrong)


def test_wrong_arguments_are_named() -> None:
    chosen = PostProcess(hierarchy=True)
    with pytest.raises(ValueError, match=r"\[3, D, H, W\].*\(2, 3, 4\)"):
        chosen.apply(np.zeros((2, 3, 4), dtype=np.bool_), UNIT)
    with pytest.raises(ValueError, match="spacing_mm"):
        chosen.apply(np.zeros((3, 2, 3, 4), dtype=np.bool_), (1.0, np.nan, 1.0))


def patient(number: int, specks: int, known: NDArray[np.bool_] = ALL_KNOWN, tumour: bool = True) -> ValidationStudy:
    """A cube of 216 mm³ found exactly, and some false specks of 8 mm³ in all three regions."""
    truth = blocks(cube(0, 0, 0, 6)) if tumour else blocks()
    false = blocks(*[cube(3 * (at // 3), 8, 4 * (at % 3) + 1, 2) for at in range(specks)])
    return ValidationStudy(np.stack([truth | false] * 3), np.stack([truth] * 3), known, UNIT, f"p{number}")


def rescore(studies: list[ValidationStudy], chosen: PostProcess, region: int) -> tuple[float, int]:
    """Mean Dice over patients with one study each, and false positives, by applying the choice to every mask."""
    dice, false = [], 0
    for study in studies:
        found = count_overlap(chosen.apply(study.mask, study.spacing_mm)[region], study.reference[region])
        if study.known[region] and found.reference:
            dice.append(2 * found.both / (found.predicted + found.reference))
        false += bool(study.known[region] and not found.reference and found.predicted)
    return float(np.mean(dice)), false


def test_specks_of_many_patients_are_dropped() -> None:
    """Beside a tumour by their share, and where they are all there is by their volume."""
    studies = [patient(number, specks=number % 4) for number in range(8)]
    studies += [patient(8 + number, specks=number % 3, tumour=False) for number in range(6)]
    chosen, table = choose_postprocess(iter(studies))
    assert choose_postprocess([PackedStudy.of(study) for study in studies]) == (chosen, table)
    assert chosen.min_share == dict.fromkeys(REGIONS, MIN_SHARES[0])
    assert chosen.min_volume_mm3 == dict.fromkeys(REGIONS, MIN_VOLUMES_MM3[0])
    assert (chosen.fill_holes, chosen.hierarchy) == (False, False)
    for region, name in enumerate(REGIONS):
        for step, values, before in (
            ("min_share", MIN_SHARES, PostProcess()),
            ("min_volume_mm3", MIN_VOLUMES_MM3, PostProcess(min_share={name: MIN_SHARES[0]})),
        ):
            rows = [row for row in table if row["step"] == step and row["region"] == name]
            assert [row["value"] for row in rows] == list(values)
            for row in rows:
                tried = before.model_copy(update={step: {name: row["value"]}})
                assert (row["dice"], row["false_positives"]) == pytest.approx(rescore(studies, tried, region))
        assert rescore(studies, PostProcess(), region)[1] == 4
        assert rescore(studies, chosen, region) == (1.0, 0)


def test_what_is_large_but_not_the_largest_is_dropped_by_its_share() -> None:
    """A false component above every limit of volume, in the nasal cavity say, and of another size in each patient."""

    def stray(number: int) -> ValidationStudy:
        truth = np.zeros((30, 60, 60), dtype=np.bool_)
        truth[:20, :20, :20] = True
        false = np.zeros_like(truth)
        false[25:, 30:, : 20 + number] = True  # 3,000 voxels and more: kept at 2,500 mm³
        return ValidationStudy(np.stack([truth | false] * 3), np.stack([truth] * 3), ALL_KNOWN, UNIT, f"p{number}")

    studies = [stray(number) for number in range(4)]
    chosen, table = choose_postprocess(studies)
    assert chosen == PostProcess(min_share=dict.fromkeys(REGIONS, 0.5))
    for region, name in enumerate(REGIONS):
        rows = [row for row in table if row["step"] == "min_share" and row["region"] == name]
        assert [row["value"] for row in rows] == list(MIN_SHARES)
        for row in rows:
            again = rescore(studies, PostProcess(min_share={name: row["value"]}), region)
            assert (row["dice"], row["false_positives"]) == pytest.approx(again)


def test_a_gain_of_one_patient_alone_is_not_taken() -> None:
    studies = [patient(number, specks=5 if number == 0 else 0) for number in range(6)]
    assert choose_postprocess(studies)[0].is_identity
    assert choose_postprocess(studies[:1])[0].is_identity


def test_never_worse_on_validation_even_where_the_mean_score_gains() -> None:
    """Cleaning three empty references would cost a true small lesion: a Dice that falls is refused."""
    small = blocks(cube(0, 0, 0, 3))
    found = ValidationStudy(np.stack([small] * 3), np.stack([small] * 3), ALL_KNOWN, UNIT, "small")
    chosen, table = choose_postprocess([found, *(patient(number, specks=2, tumour=False) for number in range(3))])
    assert chosen.is_identity
    score = {row["value"]: row["score"] for row in table if row["region"] == "WT"}
    assert score[50.0] > score[None]


def test_holes_and_nesting_are_taken_where_they_help() -> None:
    def hollow(number: int) -> ValidationStudy:
        study = patient(number, specks=0)
        mask = study.mask.copy()
        mask[:, 1:5, 1:5, 1 : 3 + number % 2] = False
        mask[2, :, 9:11, 9:11] = True
        return study._replace(mask=mask)

    chosen, table = choose_postprocess(hollow(number) for number in range(4))
    assert (chosen.fill_holes, chosen.hierarchy, chosen.min_volume_mm3) == (True, False, {})
    assert chosen.min_share == {"ET": 0.25}
    assert {row["step"] for row in table if row["chosen"]} == {"fill_holes", "min_share"}
    assert [row["dice"] for row in table if row["step"] == "hierarchy"] == [1.0, 1.0, 1.0]


def test_nesting_alone() -> None:
    """TC beside WT, too large to drop, is false: cut off with it."""

    def beside(number: int) -> ValidationStudy:
        study = patient(number, specks=0)
        mask = study.mask.copy()
        mask[1, :, 7:12, : 11 + number % 2] = True
        return study._replace(mask=mask)

    studies = [beside(number) for number in range(4)]
    chosen, _ = choose_postprocess(studies)
    assert chosen.hierarchy
    assert rescore(studies, chosen, 1) == (1.0, 0)


def test_unknown_regions_and_patients_with_many_studies() -> None:
    """An unknown region decides nothing, and a patient's studies count as one patient."""
    only_whole = np.array([True, False, False])
    many = [patient(0, specks=3, known=only_whole) for _ in range(5)]
    assert choose_postprocess(many)[0].is_identity
    chosen, table = choose_postprocess([patient(number, 1 + number % 2, only_whole) for number in range(4)])
    assert chosen == PostProcess(min_share={"WT": 0.05})
    assert all(row["dice"] is None and row["score"] is None for row in table if row["region"] != "WT")


def test_no_studies_choose_nothing() -> None:
    chosen, table = choose_postprocess([])
    assert chosen.is_identity
    assert not any(row["chosen"] for row in table)


def test_single_slices_do_not_decide_on_volumes() -> None:
    flat = [
        study._replace(mask=study.mask[:, :1], reference=study.reference[:, :1])
        for study in (patient(number, specks=1 + number % 3) for number in range(5))
    ]
    assert choose_postprocess(flat)[0].is_identity
