"""Lesion-wise figures against a literal version of the challenge's script, panoptica's table, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
import surface_distance as deepmind
from hypothesis import given, settings
from hypothesis import strategies as st
from label_volumes import MISTAKES, REAL, Mask, Spacing, phantom_regions, real_regions, with_mistake
from lesion_shapes import SHAPE, ball, lesion_cases
from scipy import ndimage

from slicewise.config import REGIONS
from slicewise.evaluation.lesions import LesionFigures, LesionScheme, lesion_figures
from slicewise.evaluation.surface import nearest, surface_distances

UNIT: Spacing = (1.0, 1.0, 1.0)
TABLE = json.loads(Path(__file__).with_name("panoptica_table.json").read_text(encoding="utf-8"))["table"]


def literal(predicted: Mask, reference: Mask, spacing: Spacing, ignored_mm3: float = 50.0) -> dict[str, Any]:
    """The published procedure step by step, each lesion grown and compared on its own, with its own libraries."""
    eighteen = ndimage.generate_binary_structure(3, 2)
    components = cc3d.connected_components(predicted, connectivity=26)
    zones = cc3d.connected_components(ndimage.binary_dilation(reference, eighteen, iterations=3), connectivity=26)
    rows, touched = [], set()
    for number in range(1, int(zones.max()) + 1):
        lesion = reference & (zones == number)
        grown = ndimage.binary_dilation(lesion, eighteen, iterations=3)
        matched = set(np.unique(components[grown]).tolist()) - {0}
        touched |= matched
        pieces = np.isin(components, list(matched))
        dice = 2 * (pieces & lesion).sum() / (pieces.sum() + lesion.sum())
        hd95 = 374.0  # the script has infinity here, and replaces it
        if matched:
            distances = deepmind.compute_surface_distances(lesion, pieces, spacing)
            hd95 = deepmind.compute_robust_hausdorff(distances, 95)
        rows.append((lesion.sum() * np.prod(spacing), bool(matched), dice, hd95))
    false = len(set(np.unique(components).tolist()) - {0} - touched)
    scored = [row for row in rows if row[0] > ignored_mm3]
    counted = len(scored) + false
    return {
        "dice": sum(row[2] for row in scored) / counted if counted else 1.0,
        "hd95_mm": (sum(row[3] for row in scored) + 374 * false) / counted if counted else 0.0,
        "true_positive": sum(row[1] for row in scored),
        "false_negative": sum(not row[1] for row in scored),
        "false_positive": false,
    }


def as_published(found: LesionFigures) -> dict[str, Any]:
    """Our figures in the script's terms: where there is nothing to find and nothing was found, it says 1 and 0."""
    record = found.record()
    names = ("dice", "hd95_mm", "true_positive", "false_negative", "false_positive")
    published = {name: record[name] for name in names}
    return published if found.dice is not None else published | {"dice": 1.0, "hd95_mm": 0.0}


def check(predicted: Mask, reference: Mask, spacing: Spacing) -> None:
    expected = pytest.approx(literal(predicted, reference, spacing), abs=1e-9)
    assert as_published(lesion_figures(predicted, reference, spacing)) == expected
    whole = surface_distances(predicted, reference, spacing)
    assert as_published(lesion_figures(predicted, reference, spacing, whole=whole)) == expected


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("region", REGIONS)
def test_phantoms_equal_the_published_procedure(region: str, mistake: str) -> None:
    regions, spacing = phantom_regions()
    check(with_mistake(regions[region], mistake), regions[region], spacing)


@pytest.mark.parametrize(("name", "region", "mistake"), [(REAL[0], "WT", "specked"), (REAL[0], "ET", "eroded")])
def test_real_scans_equal_the_published_procedure(shared_data: Path, name: str, region: str, mistake: str) -> None:
    regions, spacing = real_regions(shared_data, name)
    check(with_mistake(regions[region], mistake), regions[region], spacing)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([UNIT, (4.0, 1.0, 1.5)]), st.floats(0.001, 0.03))
def test_scattered_pieces_equal_the_published_procedure(seed: int, spacing: Spacing, share: float) -> None:
    rng = np.random.default_rng(seed)
    cube = np.ones((3, 3, 3))
    masks = [ndimage.binary_dilation(rng.random((12, 16, 20)) < share / 3, cube, iterations=1) for _ in range(2)]
    masks[0] |= rng.random(masks[0].shape) < share / 10
    check(masks[0], masks[1], spacing)


@pytest.mark.parametrize("name", list(lesion_cases()))
def test_counts_and_dice_equal_panopticas(name: str) -> None:
    """Panoptica averages the found lesions only; BraTS 2023 scores the missed and the false ones 0."""
    predicted, reference = lesion_cases()[name]
    found, row = lesion_figures(predicted, reference, UNIT), TABLE[name]
    counts = {"tp": found.true_positive, "fp": found.false_positive, "fn": found.false_negative}
    assert counts == {key: row[key] for key in counts}
    assert found.f1 == pytest.approx(row["rq"])
    assert found.dice == pytest.approx(row["sq_dsc"] * row["tp"] / sum(counts.values()))


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row["assd"] is not None])
def test_distances_from_border_voxels_equal_panopticas(name: str) -> None:
    """Panoptica pools both directions for HD95, and averages the two means for ASSD."""
    borders = [np.argwhere(mask ^ ndimage.binary_erosion(mask)).astype(float) for mask in lesion_cases()[name]]
    there, back = nearest(borders[0], borders[1]), nearest(borders[1], borders[0])
    assert (there.mean() + back.mean()) / 2 == pytest.approx(TABLE[name]["assd"])
    if TABLE[name]["global_bin_hd95"] is not None:
        assert np.percentile(np.concatenate([there, back]), 95) == pytest.approx(TABLE[name]["global_bin_hd95"])


def rod(*spans: tuple[int, int], rows: int = 4) -> Mask:
    """Bars of 4 × ``rows`` voxels across, along the last axis."""
    mask = np.zeros(SHAPE, dtype=np.bool_)
    for start, stop in spans:
        mask[10:14, 10 : 10 + rows, start:stop] = True
    return mask


def test_fragments_near_each_other_are_one_lesion() -> None:
    """Grown by 3 each, bars with 6 voxels between them touch; with 7 they do not."""
    for gap, n_lesions in ((5, 1), (6, 1), (7, 2), (9, 2)):
        found = lesion_figures(rod((2, 8)), rod((2, 8), (8 + gap, 14 + gap)), UNIT)
        assert (gap, found.reference) == (gap, n_lesions)
    found = lesion_figures(rod((2, 8)), rod((2, 8), (13, 19)), UNIT)
    assert (found.true_positive, found.false_negative, found.dice) == (1, 0, pytest.approx(2 / 3))


def test_a_component_beside_a_lesion_finds_it_without_overlap() -> None:
    """2 voxels between them: it touches the grown lesion, found with Dice 0; 3: it is false and the lesion missed."""
    near = lesion_figures(rod((10, 14)), rod((2, 8)), UNIT)
    assert (near.true_positive, near.false_positive, near.dice) == (1, 0, 0.0)
    far = lesion_figures(rod((11, 15)), rod((2, 8)), UNIT)
    assert (far.true_positive, far.false_negative, far.false_positive) == (0, 1, 1)
    assert (far.dice, far.hd95_mm, far.f1) == (0.0, 374.0, 0.0)


def test_small_lesions_are_left_out_found_or_not() -> None:
    """48 voxels at 1 mm are ignored and what finds them is not false; at 2 mm they are 384 mm³ and count."""
    small, both = rod((30, 33)), rod((2, 8), (30, 33))
    found = lesion_figures(both, both, UNIT)
    assert (found.reference, found.ignored, found.false_positive, found.dice) == (1, 1, 0, 1.0)
    missed = lesion_figures(rod((2, 8)), both, UNIT)
    assert (missed.false_negative, missed.dice, missed.hd95_mm) == (0, 1.0, 0.0)
    alone = lesion_figures(small, small, UNIT)
    assert (alone.dice, alone.hd95_mm, alone.f1, alone.ignored) == (None, None, None, 1)
    assert lesion_figures(rod((2, 8)), both, (2.0, 2.0, 2.0)).false_negative == 1


def test_exactly_50_mm3_is_still_ignored() -> None:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[5:10, 5:10, 5:7] = True
    assert lesion_figures(mask, mask, UNIT).ignored == 1
    mask[10, 5, 5] = True
    assert lesion_figures(mask, mask, UNIT).reference == 1


@pytest.mark.parametrize(
    ("predicted", "reference", "dice", "hd95"),
    [
        (False, False, None, None),
        (True, False, 0.0, 374.0),
        (False, True, 0.0, 374.0),
        (True, True, 1.0, 0.0),
    ],
)
def test_empty_masks(predicted: bool, reference: bool, dice: float | None, hd95: float | None) -> None:
    full, nothing = ball((12, 12, 12), 5), np.zeros(SHAPE, dtype=np.bool_)
    found = lesion_figures(full if predicted else nothing, full if reference else nothing, UNIT)
    assert (found.dice, found.hd95_mm) == (dice, hd95)


def test_the_scheme_can_be_another() -> None:
    """The brain metastases task grows by 1 and ignores 2 mm³."""
    metastases = LesionScheme(dilation=1, ignored_mm3=2.0)
    found = lesion_figures(rod((2, 8)), rod((2, 8), (13, 19)), UNIT, metastases)
    assert (found.reference, found.false_negative) == (2, 1)


def test_a_lesion_at_the_border_of_the_array_is_not_grown_around_it() -> None:
    mask = np.ones((6, 6, 6), dtype=np.bool_)
    found = lesion_figures(mask, mask, UNIT)
    assert (found.reference, found.predicted, found.dice, found.hd95_mm) == (1, 1, 1.0, 0.0)
