from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from slicewise.errors import StudyError
from slicewise.studies.alignment import align
from slicewise.studies.geometry import corner_distance, overlap, resample
from slicewise.studies.masks import write_mask
from slicewise.studies.nifti import NiftiVolume, load_nifti
from slicewise.studies.orientation import restore_orientation, to_display
from slicewise.studies.reading import read_study
from slicewise.studies.study import StudyRecord

Affine = NDArray[np.float64]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(
    sizes: tuple[float, ...],
    origin: tuple[float, ...] = (0, 0, 0),
    degrees: tuple[float, ...] = (0, 0, 0),
    axes: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (1, 1, 1),
) -> Affine:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    affine[:3, :3] = turn @ (np.eye(3)[list(axes)] * np.array(signs)[:, None]) @ np.diag(sizes)
    affine[:3, 3] = origin
    return affine


@st.composite
def affines(draw: st.DrawFn) -> Affine:
    """Any way in which scanners lay out a volume: flipped, permuted, oblique, anisotropic, moved."""
    return affine_of(
        draw(st.tuples(*[st.floats(0.3, 6.0)] * 3)),
        draw(st.tuples(*[st.floats(-300, 300)] * 3)),
        draw(st.tuples(*[st.floats(-180, 180)] * 3)),
        tuple(draw(st.permutations(range(3)))),
        draw(st.tuples(*[st.sampled_from([-1, 1])] * 3)),
    )


def volume(data: NDArray[np.generic], affine: Affine, name: str = "a.nii.gz") -> NiftiVolume:
    return NiftiVolume(Path(name), data, affine)


def field(shape: tuple[int, ...], affine: Affine) -> NDArray[np.float32]:
    """A function of the place alone, linear so that trilinear interpolation is exact."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    return np.asarray(1000 + world @ [3.0, -2.0, 5.0], dtype=np.float32)


SHAPES = st.tuples(*[st.integers(1, 7)] * 3)


@settings(max_examples=60, deadline=None)
@given(affine=affines(), shape=SHAPES, seed=st.integers(0, 999), zipped=st.booleans(), codes=st.integers(0, 2))
def test_a_mask_lies_on_its_scan(
    affine: Affine, shape: tuple[int, int, int], seed: int, zipped: bool, codes: int
) -> None:
    blob = np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        scan = nib.Nifti1Image(blob.astype(np.int16), affine)
        scan.set_qform(affine, [0, 1, 1][codes])
        scan.set_sform(affine, [2, 0, 4][codes])
        nib.save(scan, Path(folder, "scan.nii.gz"))
        like = load_nifti(Path(folder, "scan.nii.gz"), "A")
        shown = to_display(blob, like.affine)
        target = Path(folder, "mask.nii.gz" if zipped else "mask.nii")
        write_mask(shown, like, target)
        source, mask = nib.load(Path(folder, "scan.nii.gz")), nib.load(target)
        voxels = np.asarray(mask.dataobj)
        assert (mask.get_data_dtype(), mask.header.get_xyzt_units()[0]) == (np.uint8, "mm")
        assert np.array_equal(voxels, blob)
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
        assert corner_distance(shape, mask.affine, source.affine) < 1e-3
        # The same through nibabel's own way to RAS: the mask and the scan stay on each other.
        ras_mask, ras_scan = nib.as_closest_canonical(mask), nib.as_closest_canonical(source)
        assert np.array_equal(np.asarray(ras_mask.dataobj), np.asarray(ras_scan.dataobj))
        # And display orientation is RAS with rows and columns reversed.
        assert np.array_equal(shown, np.asarray(ras_mask.dataobj)[::-1, ::-1].transpose(2, 1, 0))


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1), (2, 0), (0, 0), (4, 1)])
def test_codes_of_a_mask(tmp_path: Path, sform: int, qform: int) -> None:
    affine = affine_of((1, 1.5, 3), (10, 20, 30), (0, 0, 0), (0, 1, 2), (-1, 1, 1))
    scan = nib.Nifti1Image(np.ones((3, 4, 5), np.int16), affine)
    scan.set_sform(affine, sform)
    scan.set_qform(affine, qform)
    nib.save(scan, tmp_path / "scan.nii")
    like = load_nifti(tmp_path / "scan.nii", "A")
    write_mask(np.ones((5, 4, 3), np.uint8), like, tmp_path / "mask.nii.gz")
    mask, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "scan.nii")
    assert int(mask.header["qform_code"]) == qform
    assert int(mask.header["sform_code"]) == (sform or qform)
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-5)
    np.testing.assert_allclose(mask.header.get_zooms(), (1, 1.5, 3))


def test_a_sheared_scan_has_a_mask_without_qform(tmp_path: Path) -> None:
    affine = affine_of((1, 1, 3))
    affine[0, 2] = 0.8  # a tilted gantry
    write_mask(np.ones((5, 4, 3), np.bool_), (affine, (3, 4, 5)), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert int(mask.header["qform_code"]) == 0
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)


def test_a_mask_of_another_shape_or_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        write_mask(np.ones((3, 4, 5), np.uint8), (LPS, (3, 4, 5)), tmp_path / "mask.nii.gz")
    with pytest.raises(ValueError, match="float32"):
        write_mask(np.ones((5, 4, 3), np.float32), (LPS, (3, 4, 5)), tmp_path / "mask.nii.gz")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_simpleitk_sees_a_mask_where_the_scan_is(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = affine_of((0.9, 1.1, 4), (12, -30, 7), (10, -20, 35), (2, 0, 1), (1, -1, 1))
    scan = nib.Nifti1Image(np.random.default_rng(0).integers(0, 5, (4, 5, 6)).astype(np.int16), affine)
    scan.set_sform(affine, 1)
    scan.set_qform(affine, 1)
    nib.save(scan, tmp_path / "scan.nii.gz")
    like = load_nifti(tmp_path / "scan.nii.gz", "A")
    write_mask(to_display(like.data, like.affine).astype(np.uint8), like, tmp_path / "mask.nii.gz")
    one, other = (sitk.ReadImage(str(tmp_path / name)) for name in ("scan.nii.gz", "mask.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
    for place in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(one, place)(), getattr(other, place)(), atol=1e-4)


@given(affine=affines(), shape=SHAPES)
def test_display_views_share_memory_and_lps_is_contiguous(affine: Affine, shape: tuple[int, int, int]) -> None:
    data = np.zeros(shape, np.int16, order="F")
    assert np.shares_memory(to_display(data, affine), data)
    assert np.shares_memory(restore_orientation(to_display(data, affine), affine, shape), data)
    assert to_display(data, LPS).flags.c_contiguous


def test_corner_distance_in_mm() -> None:
    moved = affine_of((1, 1, 1), (0, 0, 2.5))
    assert corner_distance((3, 3, 3), np.eye(4), moved) == 2.5
    assert corner_distance((11, 3, 3), np.eye(4), affine_of((1.1, 1, 1))) == pytest.approx(1.0)


def test_overlap_is_a_share_of_the_first() -> None:
    grid = (10, 10, 10)
    assert overlap(grid, np.eye(4), grid, np.eye(4)) == 1
    assert overlap(grid, np.eye(4), grid, affine_of((1, 1, 1), (5, 0, 0))) == pytest.approx(0.5, abs=0.03)
    assert overlap(grid, np.eye(4), (20, 20, 20), affine_of((1, 1, 1), (-5, -5, -5))) == 1
    assert overlap((20, 20, 20), np.eye(4), grid, np.eye(4)) == pytest.approx(1 / 8, abs=0.02)
    assert overlap(grid, np.eye(4), grid, affine_of((1, 1, 1), (50, 0, 0))) == 0


@settings(max_examples=40, deadline=None)
@given(affine=affines(), other=affines(), shape=SHAPES)
def test_resampling_puts_every_value_where_it_was(affine: Affine, other: Affine, shape: tuple[int, int, int]) -> None:
    """A function of the place keeps its value at every place well inside, whatever the two grids."""
    size = (12, 11, 10)
    other[:3, 3] += affine[:3] @ [6, 5, 5, 1] - other[:3] @ [*(n / 2 for n in shape), 1]  # centre on centre
    result = resample(field(size, affine), affine, shape, other)
    back = np.linalg.inv(affine) @ other
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ back[:3, :3].T + back[:3, 3]
    step = np.linalg.norm(back[:3, :3], axis=1)
    margin = 0.01 + 3 * np.maximum(step - 1, 0)  # the blur of a coarser grid reaches so far
    inner = ((places >= margin) & (places <= np.array(size) - 1 - margin)).all(-1)
    outside = ((places < -0.51) | (places > np.array(size) - 0.49)).any(-1)
    np.testing.assert_allclose(result[inner], field(shape, other)[inner], rtol=2e-4, atol=0.3)
    assert not result[outside].any()


def test_resampling_agrees_with_nibabel() -> None:
    noise = np.random.default_rng(0).normal(100, 20, (15, 14, 13)).astype(np.float32)
    affine, onto = affine_of((2, 2, 3), (1, 2, 3), (5, -8, 12)), affine_of((1, 1, 1), (8, 6, 8), (-3, 4, 2))
    shape = (12, 12, 12)
    theirs = resample_from_to(nib.Nifti1Image(noise, affine), (shape, onto), order=1, mode="nearest").get_fdata()
    np.testing.assert_allclose(resample(noise, affine, shape, onto), theirs, rtol=1e-4)


def test_resampling_to_thick_slices_averages() -> None:
    stripes = np.zeros((4, 4, 60), np.float32)
    stripes[..., ::5] = 100  # every fifth plane: a point sample would see all or nothing
    thick = resample(stripes, np.eye(4), (4, 4, 12), affine_of((1, 1, 5), (0, 0, 0)))
    assert 15 < thick[..., 2:-2].min() <= thick[..., 2:-2].max() < 30
    assert np.array_equal(resample(stripes, np.eye(4), (4, 4, 60), np.eye(4)), stripes)


def test_outermost_slices_survive_rounding() -> None:
    affine = affine_of((0.9375, 0.9375, 5), (-119.53125, -101.3, -33.7))
    data = np.full((6, 6, 3), 7, np.int16)
    assert (resample(data, affine, (6, 6, 3), affine + 1e-9) == 7).all()
    fine = resample(data, affine, (6, 6, 15), affine_of((0.9375, 0.9375, 1), (-119.53125, -101.3, -35.7)))
    assert (fine == 7).all()  # three slices of 5 mm are fifteen of 1 mm, to the outer faces


def flair_and_t1() -> dict[str, NiftiVolume]:
    thick, thin = affine_of((1, 1, 5), (0, 0, 2)), affine_of((1, 1, 1))
    return {
        "flair": volume(field((30, 30, 6), thick), thick, "flair.nii.gz"),
        "t1": volume(field((30, 30, 30), thin), thin, "t1.nii.gz"),
    }


def test_the_modality_of_the_finest_slices_is_the_reference() -> None:
    warnings: list[str] = []
    volumes = flair_and_t1()
    made = align(volumes, None, "A", warnings)
    assert made["t1"] is volumes["t1"]
    np.testing.assert_allclose(made["flair"].data[..., 3:27], volumes["t1"].data[..., 3:27], rtol=1e-4)
    assert warnings == ["flair: resampled from 30×30×6 voxels of 1×1×5 mm to 30×30×30 voxels of 1×1×1 mm, "
                        "of which it covers 100%"]  # fmt: skip


def test_the_label_is_the_reference_and_stays() -> None:
    warnings: list[str] = []
    volumes = flair_and_t1()
    label = volume(np.ones((30, 30, 6), np.uint8), volumes["flair"].affine, "seg.nii.gz")
    made = align(volumes, label, "A", warnings)
    assert made["flair"] is volumes["flair"]
    assert made["t1"].data.shape == (30, 30, 6)
    np.testing.assert_allclose(made["t1"].data[4:-4, 4:-4, 1:-1], volumes["flair"].data[4:-4, 4:-4, 1:-1], rtol=1e-3)
    assert warnings[0].startswith("t1: resampled")
    odd = volume(np.ones((30, 30, 7), np.uint8), volumes["flair"].affine, "seg.nii.gz")
    with pytest.raises(StudyError, match=r"seg\.nii\.gz .*on the grid of no image.*flair\.nii\.gz"):
        align(volumes, odd, "A", warnings)
    moved = volume(np.ones((30, 30, 6), np.uint8), affine_of((1, 1, 5), (0, 0, 5)), "seg.nii.gz")
    with pytest.raises(StudyError, match=r"flair\.nii\.gz lies 3\.00 mm apart"):
        align(volumes, moved, "A", warnings)


def test_too_little_overlap_is_refused_with_the_number() -> None:
    volumes = flair_and_t1()
    away = affine_of((1, 1, 5), (20, 0, 2))
    volumes["flair"] = volume(volumes["flair"].data, away, "flair.nii.gz")
    with pytest.raises(StudyError, match=r"flair\.nii\.gz covers 3\d% of t1\.nii\.gz, less than 50%") as caught:
        align(volumes, None, "A", [])
    assert "co-register" in caught.value.cure


def test_same_shape_in_another_place_is_refused_unless_a_scanner_says_so() -> None:
    first, second = affine_of((1, 1, 3)), affine_of((1, 1, 3), (0.5, 1, 1.5), (4, 0, 0))
    volumes = {"flair": volume(field((20, 20, 9), first), first), "t1": volume(field((20, 20, 9), second), second)}
    with pytest.raises(StudyError, match="mm apart"):
        align(volumes, None, "A", [])
    warnings: list[str] = []
    made = align(volumes, None, "A", warnings, scanner_frames=True)
    inner = (slice(4, -4), slice(4, -4), slice(2, -2))
    np.testing.assert_allclose(made["t1"].data[inner], volumes["flair"].data[inner], rtol=1e-4)
    assert "t1: resampled" in warnings[0]


def test_a_study_of_two_grids_from_files(tmp_path: Path) -> None:
    """Through the reader: NaN is repaired before it could spread, and the study says what was done."""
    volumes = flair_and_t1()
    flair = volumes["flair"].data.copy()
    flair[10, 10, 3] = np.nan
    nib.save(nib.Nifti1Image(flair, volumes["flair"].affine), tmp_path / "flair.nii.gz")
    nib.save(nib.Nifti1Image(volumes["t1"].data, volumes["t1"].affine), tmp_path / "t1.nii.gz")
    images = {"flair": ("flair.nii.gz",), "t1": ("t1.nii.gz",)}
    record = StudyRecord(study_id="A", patient_id="A", source="x", layout="nifti", images=images)
    study = read_study(record, tmp_path)
    assert [channel.shape for channel in study.channels] == [(30, 30, 30)] * 2
    assert study.spacing_mm == (1.0, 1.0, 1.0)
    assert np.isfinite(study.image).all()
    np.testing.assert_allclose(study.image[0, 5:10], study.image[1, 5:10], rtol=1e-4)
    assert len(study.warnings) == 2
