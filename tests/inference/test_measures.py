"""Volumes, slices, diameters, components, centre, side: by hand, against SimpleITK and SciPy, on real scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from slicewise.inference.diameters import measure_diameters, plane_diameters
from slicewise.inference.laterality import find_laterality, find_mid_plane
from slicewise.inference.measures import measure, measure_region
from slicewise.slices.regions import region_maps
from slicewise.studies.orientation import to_display

Mask = NDArray[np.bool_]
UNIT = (1.0, 1.0, 1.0)
PIXEL = np.sqrt(2)
PLANES = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def ellipse(a: float, b: float, angle: float, size: int = 101, pixel: tuple[float, float] = (1.0, 1.0)) -> Mask:
    """Pixels whose centre lies in an ellipse of semi-axes ``a`` and ``b`` mm, turned, in the middle; one slice."""
    rows, columns = (np.arange(size) - size // 2) * pixel[0], (np.arange(size) - size // 2) * pixel[1]
    y, x = np.meshgrid(rows, columns, indexing="ij")
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return ((u / a) ** 2 + (v / b) ** 2 <= 1)[None]


def diameters(mask: Mask, spacing: tuple[float, float, float] = UNIT) -> tuple[float, float]:
    found = measure_diameters(mask, spacing)
    assert found is not None
    return found.largest_mm, found.perpendicular_mm


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2, 2.5])
@pytest.mark.parametrize(("a", "b"), [(30.0, 12.0), (44.0, 40.0), (20.0, 3.0)])
def test_ellipses_within_a_pixel(a: float, b: float, angle: float) -> None:
    largest, perpendicular = diameters(ellipse(a, b, angle))
    assert largest == pytest.approx(2 * a, abs=PIXEL)
    assert perpendicular == pytest.approx(2 * b, abs=2 * PIXEL)


def test_an_ellipse_in_pixels_that_are_not_square() -> None:
    found = diameters(ellipse(30.0, 12.0, 0.6, 161, (0.5, 0.8)), (5.0, 0.5, 0.8))
    assert found == pytest.approx((60.0, 24.0), abs=2 * float(np.hypot(0.5, 0.8)))


@pytest.mark.parametrize(("height", "width"), [(10, 30), (7, 7), (1, 12), (1, 1)])
def test_rectangles_exactly(height: int, width: int) -> None:
    """The diagonal d, and across its middle a chord of short side × d / long side."""
    mask = np.zeros((3, 40, 40), dtype=np.bool_)
    mask[1, 3 : 3 + height, 5 : 5 + width] = True
    diagonal = np.hypot(height, width)
    expected = (diagonal, min(height, width) * diagonal / max(height, width))
    assert diameters(mask) == pytest.approx(expected)
    assert diameters(mask, (9.0, 2.0, 2.0)) == pytest.approx((2 * expected[0], 2 * expected[1]))


def test_the_largest_piece_on_one_slice_decides() -> None:
    """Two pieces of one slice are not bridged, and neither are two slices; corners connect."""
    mask = np.zeros((4, 30, 30), dtype=np.bool_)
    mask[0, 0:3, 0:4] = mask[0, 20:23, 25:29] = True
    mask[2, 10:13, 0:8] = True
    mask[3, 13:16, 8:16] = True
    found = measure_diameters(mask, (4.0, 1.0, 1.0))
    assert found is not None
    assert (found.largest_mm, found.slice) == (pytest.approx(np.hypot(3, 8)), 2)
    mask[2, 13:16, 8:16] = True
    assert diameters(mask)[0] == pytest.approx(np.hypot(6, 16))


@settings(max_examples=30)
@given(PLANES, st.sampled_from([(1.0, 1.0), (0.7, 1.9)]))
def test_diameters_against_all_pairs_and_clipped_lines(plane: Mask, pixel: tuple[float, float]) -> None:
    """The distance of all pairs of pixel corners, and chords cut by the half-planes of SciPy's hull."""
    assume(plane.any())
    largest, perpendicular = plane_diameters(plane, pixel)
    corners = np.unique(np.concatenate([np.argwhere(plane) + step for step in np.ndindex(2, 2)]), axis=0) * pixel
    apart = corners[:, None] - corners[None]
    distances = np.linalg.norm(apart, axis=-1)
    assert largest == pytest.approx(distances.max())
    longest, sides = 0.0, ConvexHull(corners).equations
    for one, other in np.argwhere(distances > distances.max() - 1e-6):
        along = apart[one, other] / largest
        longest = max(longest, *(chord(sides, point, np.array([-along[1], along[0]])) for point in corners))
    assert perpendicular == pytest.approx(longest)
    assert perpendicular <= largest + 1e-6


def chord(sides: NDArray[Any], point: NDArray[Any], direction: NDArray[Any]) -> float:
    """Length of the line through ``point`` within the half-planes ``sides``."""
    slope, room = sides[:, :2] @ direction, -(sides[:, :2] @ point + sides[:, 2])
    ahead, behind = slope > 1e-9, slope < -1e-9
    return float((room[ahead] / slope[ahead]).min() - (room[behind] / slope[behind]).max())


@settings(max_examples=20)
@given(hnp.arrays(np.bool_, (3, 6, 7)), st.permutations([1, 2]))
def test_flips_and_padding_do_not_change_the_diameters(mask: Mask, axes: list[int]) -> None:
    assume(mask.any())
    expected = pytest.approx(diameters(mask))
    assert diameters(mask[::-1, ::-1, ::-1]) == expected
    assert diameters(np.pad(mask, 2)) == expected
    assert diameters(mask.transpose(0, *axes)) == expected


def test_measures_by_hand() -> None:
    """Two blocks of 2 × 3 × 4 voxels of 2 × 1 × 0.5 mm, touching by a corner, and a voxel apart."""
    mask = np.zeros((8, 12, 14), dtype=np.bool_)
    mask[1:3, 2:5, 3:7] = mask[3:5, 5:8, 7:11] = mask[6, 11, 0] = True
    found = measure_region(mask, (2.0, 1.0, 0.5))
    assert found.volume_ml == pytest.approx(49 / 1000)
    assert (found.slices, found.first_slice, found.last_slice, found.components) == (5, 1, 6, 2)
    assert found.diameters_mm == pytest.approx((np.hypot(3, 2), 2 * np.hypot(3, 2) / 3))
    assert found.centroid == pytest.approx(ndimage.center_of_mass(mask))


def test_an_empty_mask_has_no_measures() -> None:
    found = measure(np.zeros((3, 4, 5, 6), dtype=np.bool_), UNIT, np.ones((4, 5, 6), dtype=np.bool_))
    record = json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))
    rest = dict.fromkeys(("first_slice", "last_slice", "diameters_mm", "diameter_slice", "centroid"))
    assert record["regions"]["ET"] == {"volume_ml": 0.0, "slices": 0, "components": 0} | rest
    assert set(record["laterality"].values()) == {None}


def test_a_full_frame_is_measured() -> None:
    full = measure_region(np.ones((2, 3, 4), dtype=np.bool_), UNIT)
    assert (full.slices, full.components, full.diameters_mm) == (2, 1, pytest.approx((5.0, 15 / 4)))


@pytest.mark.parametrize(
    ("shape", "spacing", "words"),
    [((2, 4, 5, 6), UNIT, r"mask \(2, 4, 5, 6\)"), ((3, 4, 5, 6), (1.0, -1.0, 1.0), "spacing_mm")],
)
def test_wrong_arguments_are_named(shape: tuple[int, ...], spacing: tuple[float, float, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measure(np.zeros(shape, dtype=np.bool_), spacing)
    with pytest.raises(ValueError, match="head"):
        measure(np.zeros((3, 4, 5, 6), dtype=np.bool_), UNIT, np.ones((4, 5, 5), dtype=np.bool_))


def head_of(tilt: float = 0.0, shift: float = 0.0) -> Mask:
    """An ellipsoid, turned in the axial plane and moved to the side."""
    z, y, x = np.meshgrid(np.arange(20) - 10, np.arange(60) - 30, np.arange(50) - 25 - shift, indexing="ij")
    u, v = x * np.cos(tilt) - y * np.sin(tilt), y * np.cos(tilt) + x * np.sin(tilt)
    return (z / 9) ** 2 + (v / 26) ** 2 + (u / 18) ** 2 <= 1


def test_the_mid_plane_follows_a_head_that_is_moved_and_turned() -> None:
    straight = find_mid_plane(head_of(shift=3))
    assert straight is not None
    assert (straight.at, straight.by_slice, straight.by_row) == pytest.approx((28, 0, 0), abs=1e-6)
    turned = find_mid_plane(head_of(tilt=0.1))
    assert turned is not None
    middle = turned.at + turned.by_slice * 10 + turned.by_row * 30
    assert middle == pytest.approx(25, abs=0.1)
    # An ellipse's rows are bisected by its conjugate diameter, which leans less than its axis.
    assert 0.05 < abs(turned.by_row) < 0.1
    single = find_mid_plane(head_of(shift=3)[10:11])
    assert single is not None
    assert single.at + single.by_row * 30 == pytest.approx(28, abs=1e-6)
    assert find_mid_plane(np.zeros((3, 4, 5), dtype=np.bool_)) is None


@pytest.mark.parametrize(
    ("columns", "side", "left", "touches"),
    [
        ((10, 20), "right", 0.0, False),
        ((31, 41), "left", 1.0, False),
        ((26, 40), "left", 1.0, True),
        ((10, 27), "right", 1.5 / 17, True),
        ((9, 42), "both", 0.5, True),
        ((20, 31), "midline", 0.5, True),
    ],
)
def test_sides_by_hand(columns: tuple[int, int], side: str, left: float, touches: bool) -> None:
    """The mid-plane is column 25; columns above it are the patient's left. 1.5 mm a column."""
    mask = np.zeros((20, 60, 50), dtype=np.bool_)
    mask[8:12, 25:30, columns[0] : columns[1]] = True
    found = find_laterality(mask, head_of(), (1.0, 1.0, 1.5))
    assert (found.side, found.touches_midline) == (side, touches)
    assert found.left_share == pytest.approx(left)
    assert found.right_share == pytest.approx(1 - left)
    assert find_laterality(mask, None, UNIT).side is None


@pytest.mark.parametrize("name", ["BraTS2021_01482", "Brats18_CBICA_AME_1"])
def test_real_scans(shared_data: Path, name: str) -> None:
    """Volume and components as SimpleITK's, its Feret diameter within a pixel, and the mirrored side mirrored."""
    folder = shared_data / "brats" / name
    image = nib.load(next(folder.glob("*_flair.nii*")))
    label = nib.load(next(folder.glob("*_seg.nii*")))
    head = np.ascontiguousarray(to_display(np.asarray(image.dataobj), image.affine) > 0)
    labels = to_display(np.asarray(label.dataobj), label.affine).astype(np.uint8)
    mask = np.ascontiguousarray(np.moveaxis(region_maps(labels), -3, 0))
    found = measure(mask, UNIT, head)
    core = found.regions["TC"]
    assert core.volume_ml == pytest.approx(np.isin(labels, (1, 4)).sum() / 1000)
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(mask[1].astype(np.uint8)), True)
    assert core.components == int(sitk.GetArrayViewFromImage(pieces).max())
    assert core.diameters_mm is not None
    assert core.diameters_mm[0] == pytest.approx(feret(mask[1]), abs=PIXEL)
    side = found.laterality
    assert side.side in ("left", "right")
    mirrored = measure(mask[..., ::-1], UNIT, head[..., ::-1]).laterality
    assert {side.side, mirrored.side} == {"left", "right"}
    assert mirrored.left_share == pytest.approx(side.right_share)


def feret(mask: Mask) -> float:
    """The largest distance between pixel centres of one piece of one slice, as SimpleITK measures it."""
    largest = 0.0
    for plane in mask[mask.any(axis=(1, 2))]:
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.ComputeFeretDiameterOn()
        shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(plane.astype(np.uint8)), True))
        largest = max(largest, *(shapes.GetFeretDiameter(label) for label in shapes.GetLabels()))
    return largest
