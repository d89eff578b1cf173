"""Surface distances against DeepMind's, MONAI's and SimpleITK's, by hand, and what must not change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import surface_distance as deepmind
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_volumes import MISTAKES, REAL, Mask, Spacing, phantom_regions, real_regions, with_mistake
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from monai.metrics.utils import get_mask_edges

from slicewise.config import REGIONS
from slicewise.evaluation.surface import SurfaceDistances, nearest, surface_distances
from slicewise.evaluation.surfels import surface_areas

SPACINGS: tuple[Spacing, ...] = ((1.0, 1.0, 1.0), (5.0, 0.9, 0.9), (1.5, 0.7, 1.1))
SMALL = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))


def distances_of(predicted: Mask, reference: Mask, spacing: Spacing) -> SurfaceDistances:
    found = surface_distances(predicted, reference, spacing)
    assert found is not None
    return found


def border(mask: Mask, spacing: Spacing) -> np.ndarray:
    """MONAI's surface: voxels of the mask with a face outside; ``[n, 3]`` in mm."""
    edges, _ = get_mask_edges(mask, np.zeros_like(mask), crop=False)
    return np.argwhere(edges) * np.array(spacing)


def monai_figures(predicted: Mask, reference: Mask, spacing: Spacing) -> tuple[float, float]:
    pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    words: dict[str, Any] = {"include_background": True, "spacing": spacing}
    hd95 = compute_hausdorff_distance(*pair, percentile=95, **words)
    assd = compute_average_surface_distance(*pair, symmetric=True, **words)
    return float(hd95), float(assd)


def check_against_the_others(predicted: Mask, reference: Mask, spacing: Spacing) -> None:
    """Equal to DeepMind's; to MONAI's and SimpleITK's exactly from their surface, closely from ours."""
    found = distances_of(predicted, reference, spacing)
    theirs = deepmind.compute_surface_distances(reference, predicted, spacing)
    assert found.hausdorff() == pytest.approx(deepmind.compute_robust_hausdorff(theirs, 95), abs=1e-9)
    assert found.hausdorff(100) == pytest.approx(deepmind.compute_robust_hausdorff(theirs, 100), abs=1e-9)
    means = deepmind.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert found.average() == pytest.approx(np.average(means, weights=areas), abs=1e-9)
    there, back = border(predicted, spacing), border(reference, spacing)
    directed = nearest(there, back), nearest(back, there)
    hd95, assd = monai_figures(predicted, reference, spacing)
    assert max(np.percentile(side, 95) for side in directed) == pytest.approx(hd95, rel=1e-5)
    assert np.concatenate(directed).mean() == pytest.approx(assd, rel=1e-5)
    voxel = float(np.linalg.norm(spacing))
    assert found.hausdorff() == pytest.approx(hd95, abs=voxel)
    assert found.average() == pytest.approx(assd, abs=voxel / 3)
    assert found.hausdorff(100) == pytest.approx(itk_hausdorff(predicted, reference, spacing), abs=voxel)


def itk_hausdorff(predicted: Mask, reference: Mask, spacing: Spacing) -> float:
    """The Hausdorff distance between the sets of voxels, by a distance transform."""
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (predicted, reference)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    distance = float(measure.GetHausdorffDistance())
    points = [np.argwhere(mask) * np.array(spacing) for mask in (predicted, reference)]
    own = max(nearest(points[0], points[1]).max(), nearest(points[1], points[0]).max())
    assert own == pytest.approx(distance, rel=1e-5)
    return distance


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("region", REGIONS)
def test_phantoms_agree_with_other_libraries(region: str, mistake: str) -> None:
    regions, spacing = phantom_regions()
    check_against_the_others(with_mistake(regions[region], mistake), regions[region], spacing)


@pytest.mark.parametrize(("name", "region", "mistake"), [(REAL[0], "TC", "specked"), (REAL[1], "ET", "shifted")])
def test_real_scans_agree_with_other_libraries(shared_data: Path, name: str, region: str, mistake: str) -> None:
    regions, spacing = real_regions(shared_data, name)
    check_against_the_others(with_mistake(regions[region], mistake), regions[region], spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_cells_are_deepminds(spacing: Spacing) -> None:
    table = deepmind.lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    assert surface_areas(spacing) == pytest.approx(table, abs=1e-9)


def single(shape: tuple[int, int, int], *voxels: tuple[int, int, int]) -> Mask:
    mask = np.zeros(shape, dtype=np.bool_)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_two_single_voxels_by_hand() -> None:
    """Three columns apart: half the surface is 3 mm away, the half that faces the other is 2 mm away."""
    found = distances_of(single((1, 1, 5), (0, 0, 0)), single((1, 1, 5), (0, 0, 3)), (1.0, 1.0, 1.0))
    assert (found.hausdorff(), found.average()) == (3.0, pytest.approx(2.5))
    # One thick slice apart, they share a face.
    found = distances_of(single((2, 1, 1), (0, 0, 0)), single((2, 1, 1), (1, 0, 0)), (6.0, 1.0, 1.0))
    assert (found.hausdorff(), found.average()) == (6.0, pytest.approx(3.0))


def test_a_small_far_piece_counts_only_beyond_the_percentile() -> None:
    """A cube of 10 against itself and a far voxel: the voxel is less than 5 % of the predicted surface."""
    reference = single((12, 12, 60))
    reference[1:11, 1:11, 1:11] = True
    predicted = reference | single(reference.shape, (5, 5, 50))
    found = distances_of(predicted, reference, (1.0, 1.0, 1.0))
    assert found.hausdorff() == 0.0
    assert found.hausdorff(100) == pytest.approx(40.0)


@pytest.mark.parametrize("full", [True, False])
def test_a_mask_that_touches_the_border_has_a_surface_there(full: bool) -> None:
    mask = np.full((3, 4, 5), full)
    mask[1, 1, 1] = True
    found = distances_of(mask, mask, (1.0, 1.0, 1.0))
    assert (found.hausdorff(), found.average()) == (0.0, 0.0)
    padded = distances_of(np.pad(mask, 3), np.pad(mask, 3), (1.0, 1.0, 1.0))
    assert padded.predicted_area.sum() == pytest.approx(found.predicted_area.sum())


@pytest.mark.parametrize("empty", ["predicted", "reference", "both"])
def test_distances_to_an_empty_mask_are_undefined(empty: str) -> None:
    nothing, something = np.zeros((3, 3, 3), dtype=np.bool_), single((3, 3, 3), (1, 1, 1))
    predicted = something if empty == "reference" else nothing
    reference = something if empty == "predicted" else nothing
    assert surface_distances(predicted, reference, (1.0, 1.0, 1.0)) is None


@settings(max_examples=40)
@given(SMALL, st.randoms(use_true_random=False), st.sampled_from(SPACINGS), st.permutations(range(3)))
def test_what_does_not_change_the_distances(mask: Mask, random: Any, spacing: Spacing, axes: list[int]) -> None:
    """Which is predicted, space around, flips, the order of the axes; and equal masks are 0 mm apart."""
    other = mask.copy()
    other.flat[random.randrange(mask.size)] ^= True
    if not mask.any() or not other.any():
        return
    found = distances_of(mask, other, spacing)
    expected = pytest.approx((found.hausdorff(), found.average()), abs=1e-9)
    flip = tuple(slice(None, None, random.choice((1, -1))) for _ in range(3))
    turned = tuple(spacing[axis] for axis in axes)
    for again in (
        distances_of(other, mask, spacing),
        distances_of(np.pad(mask, 2), np.pad(other, 2), spacing),
        distances_of(mask[flip], other[flip], spacing),
        distances_of(mask.transpose(axes), other.transpose(axes), (turned[0], turned[1], turned[2])),
    ):
        assert (again.hausdorff(), again.average()) == expected
    assert distances_of(mask, mask, spacing).average() == 0
