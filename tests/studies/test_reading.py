from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from slicewise.errors import StudyError
from slicewise.studies import pictures
from slicewise.studies.layouts import discover
from slicewise.studies.orientation import display_spacing, restore_orientation, to_display
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 900, (5, 6, 4)).astype(np.int16)


def save(path: Path, data: NDArray[Any], affine: NDArray[np.float64] = LPS) -> None:
    path.write_bytes(gzip.compress(nib.Nifti1Image(data, affine).to_bytes(), mtime=0))


def brats(folder: Path, affine: NDArray[np.float64] = LPS, **volumes: NDArray[Any]) -> StudyRecord:
    for name, data in volumes.items():
        save(folder / f"A_{name}.nii.gz", data, affine)
    return record_of(*volumes)


def record_of(*names: str) -> StudyRecord:
    images = {name: (f"A_{name}.nii.gz",) for name in names if name != "seg"}
    labels = ("A_seg.nii.gz",) if "seg" in names else ()
    return StudyRecord(study_id="A", patient_id="A", source="x", layout="brats", images=images, labels=labels)


def test_orientation_channels_and_type(tmp_path: Path) -> None:
    seg = np.zeros(VOLUME.shape, np.uint8)
    seg[1, 2, 3] = 4
    study = read_study(brats(tmp_path, t2=VOLUME, flair=VOLUME + 1, seg=seg), tmp_path)
    assert study.modalities == ("flair", "t2")
    assert study.image.dtype == np.int16
    assert np.array_equal(study.image[1], VOLUME.transpose(2, 1, 0))
    assert study.labels is not None
    assert np.argwhere(study.labels).tolist() == [[3, 2, 1]]
    assert study.known_regions == ("WT", "TC", "ET")
    assert (study.spacing_mm, study.spacing_known, study.warnings) == ((1.0, 1.0, 1.0), True, ())


def test_scale_factor_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOLUME, LPS)
    image.header.set_slope_inter(0.5, 3)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, 3], "<f4").tobytes()  # to_bytes rescales; put the factor back by hand
    stored = nib.Nifti1Image.from_bytes(bytes(content))
    expected = np.asarray(stored.dataobj).transpose(2, 1, 0)
    (tmp_path / "A_t1.nii.gz").write_bytes(bytes(content))  # not compressed, whatever its name says
    study = read_study(record_of("t1"), tmp_path)
    assert np.allclose(study.image[0], expected)
    assert study.image.dtype == np.float32


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    axes = np.eye(3)[list(draw(st.permutations(range(3))))]
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    sizes = draw(st.tuples(*[st.floats(0.3, 6.0)] * 3))
    angle = draw(st.floats(-0.35, 0.35))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ (axes * np.array(signs)[:, None]) @ np.diag(sizes)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return affine


@given(affine=affines())
def test_reorientation_and_its_inverse(affine: NDArray[np.float64]) -> None:
    shown = to_display(VOLUME, affine)
    assert np.array_equal(restore_orientation(shown, affine, (5, 6, 4)), VOLUME)
    # Each display axis must run to where its name says: find the voxels' places through the affine.
    places = np.stack(np.meshgrid(*map(np.arange, VOLUME.shape), indexing="ij"), -1) @ affine[:3, :3].T
    world = np.stack([to_display(places[..., k], affine) for k in range(3)], -1)
    step = [np.diff(world, axis=axis).reshape(-1, 3)[0] for axis in range(3)]
    assert step[0][2] > 0  # slices to superior
    assert step[1][1] < 0  # rows to posterior
    assert step[2][0] < 0  # columns to the left
    assert np.allclose([np.linalg.norm(s) for s in step], display_spacing(affine))


def test_restoring_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        restore_orientation(np.zeros((2, 3, 4)), LPS, (5, 6, 4))


PACKED = gzip.compress(nib.Nifti1Image(VOLUME, LPS).to_bytes(), mtime=0)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, len(PACKED) - 1))
def test_truncation_anywhere_is_an_error(length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "A_t1.nii.gz").write_bytes(PACKED[:length])
        with pytest.raises(StudyError, match=r"A_t1\.nii\.gz") as caught:
            read_study(record_of("t1"), Path(folder))
    assert "again" in caught.value.cure


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=600))
def test_rubbish_is_an_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "A_t1.nii.gz").write_bytes(data)
        with pytest.raises(StudyError, match=r"A_t1\.nii\.gz"):
            read_study(record_of("t1"), Path(folder))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"A_t1\.nii\.gz is missing"):
        read_study(record_of("t1"), tmp_path)


def test_four_dimensions(tmp_path: Path) -> None:
    study = read_study(brats(tmp_path, t1=VOLUME[..., None]), tmp_path)
    assert study.image.shape == (1, 4, 6, 5)
    with pytest.raises(StudyError, match="5×6×4×2"):
        read_study(brats(tmp_path, t1=np.stack([VOLUME, VOLUME], -1)), tmp_path)


def test_shapes_and_affines_must_agree(tmp_path: Path) -> None:
    study = read_study(brats(tmp_path, flair=VOLUME, t1=VOLUME[1:]), tmp_path)
    assert "t1: resampled from 4×6×4 voxels" in study.warnings[0]
    with pytest.raises(StudyError, match=r"A_t1\.nii\.gz covers 4\d% of .*A_flair\.nii\.gz"):
        read_study(brats(tmp_path, flair=VOLUME, t1=VOLUME[:2]), tmp_path)
    with pytest.raises(StudyError, match="A_seg"):
        read_study(brats(tmp_path, flair=VOLUME, seg=np.zeros((5, 6, 3), np.uint8)), tmp_path)
    record = brats(tmp_path, flair=VOLUME, t1=VOLUME)
    for wrong in (np.diag([1.0, -1, 1, 1]), np.diag([-1.1, -1, 1, 1])):
        save(tmp_path / "A_t1.nii.gz", VOLUME, wrong)
        with pytest.raises(StudyError, match=r"A_flair.*A_t1.*apart"):
            read_study(record, tmp_path)
    save(tmp_path / "A_t1.nii.gz", VOLUME, LPS + 1e-4)
    assert read_study(record, tmp_path).modalities == ("flair", "t1")


def test_nan_and_constant_modalities(tmp_path: Path) -> None:
    bad = VOLUME.astype(np.float32)
    bad[0, 0, 0], bad[1, 1, 1] = np.nan, np.inf
    study = read_study(brats(tmp_path, flair=bad, t1=np.zeros_like(VOLUME)), tmp_path)
    assert study.modalities == ("flair",)
    assert np.isfinite(study.image).all()
    assert any("2 NaN" in w for w in study.warnings)
    assert any("t1 is constant" in w for w in study.warnings)
    with pytest.raises(StudyError, match="no finite value"):
        read_study(brats(tmp_path, flair=np.full_like(bad, np.nan)), tmp_path)
    with pytest.raises(StudyError, match="constant"):
        read_study(brats(tmp_path, flair=np.zeros_like(VOLUME)), tmp_path)


def labelled(folder: Path, *values: float, dtype: type = np.float32) -> Study:
    seg = np.zeros(VOLUME.shape, dtype)
    seg.flat[: len(values)] = values
    return read_study(brats(folder, flair=VOLUME, seg=seg), folder)


def test_label_values(tmp_path: Path) -> None:
    for values in ((1, 2, 3), (1, 2, 4)):
        labels = labelled(tmp_path, *values).labels
        assert labels is not None
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 1, 2, 4}
    for values, named in (((5,), "5"), ((1.5,), "1.5"), ((-1,), "-1"), ((np.nan,), "nan"), ((3, 4), "both 3 and 4")):
        with pytest.raises(StudyError, match=named):
            labelled(tmp_path, *values)


def lgg(folder: Path, stack: NDArray[np.uint8], masks: NDArray[np.uint8]) -> StudyRecord:
    stem = "TCGA_AA_0001_20000101"
    for number, (plane, mask) in enumerate(zip(stack, masks, strict=True), start=1):
        Image.fromarray(plane).save(folder / f"{stem}_{number}.tif")
        Image.fromarray(mask).save(folder / f"{stem}_{number}_mask.tif")
    return discover(folder, "lgg")[0]


def test_lgg_channels_and_mask(tmp_path: Path) -> None:
    stack = RNG.integers(0, 255, (11, 8, 9, 3)).astype(np.uint8)
    stack[..., 2] = stack[..., 1]
    masks = np.where(RNG.random((11, 8, 9)) > 0.5, 255, 0).astype(np.uint8)
    study = read_study(lgg(tmp_path, stack, masks), tmp_path)
    assert study.modalities == ("flair", "t1")
    assert np.array_equal(study.image, np.stack([stack[..., 1], stack[..., 0]]))
    assert study.labels is not None
    assert np.array_equal(study.labels, (masks > 0) * 2)
    assert (study.known_regions, study.spacing_known) == (("WT",), False)
    assert "t1ce" in study.warnings[0]


def test_lgg_slices_of_two_sizes(tmp_path: Path) -> None:
    record = lgg(tmp_path, np.ones((2, 8, 9, 3), np.uint8), np.zeros((2, 8, 9), np.uint8))
    Image.new("RGB", (4, 4)).save(tmp_path / record.images["slices"][0])
    with pytest.raises(StudyError, match="4×4"):
        read_study(record, tmp_path)


def picture(folder: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Study:
    image.save(folder / name, **options)
    return read_study(picture_record(name), folder)


def picture_record(name: str) -> StudyRecord:
    return StudyRecord(study_id="p", patient_id=None, source="x", layout="images", images={"image": (name,)})


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_every_mode_gives_the_same_grey(tmp_path: Path, mode: str) -> None:
    study = picture(tmp_path, Image.fromarray(GREY).convert(mode))
    assert study.modalities == ("unknown",)
    assert np.array_equal(study.image, GREY[None, None])
    assert (study.labels, study.known_regions) == (None, ())


def test_depth_alpha_cmyk_float_and_orientation(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 200
    assert np.array_equal(picture(tmp_path, Image.fromarray(deep)).image[0, 0], deep)
    clear = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray((GREY > 100).astype(np.uint8) * 255)])
    assert np.array_equal(picture(tmp_path, clear).image[0, 0], np.where(GREY > 100, GREY, 0))
    cmyk = picture(tmp_path, Image.fromarray(GREY).convert("RGB").convert("CMYK"), "a.tif")
    assert np.array_equal(cmyk.image[0, 0], GREY)
    floats = picture(tmp_path, Image.fromarray(GREY / np.float32(7)), "f.tif")
    assert np.allclose(floats.image[0, 0], GREY / 7)
    binary = picture(tmp_path, Image.fromarray(GREY > 100), "b.png")
    assert np.array_equal(binary.image[0, 0], (GREY > 100) * 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    turned = picture(tmp_path, Image.fromarray(GREY), exif=exif)
    assert np.array_equal(turned.image[0, 0], np.rot90(GREY, -1))


def test_first_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    study = picture(tmp_path, frames[0], "a.tif", save_all=True, append_images=frames[1:])
    assert np.array_equal(study.image[0, 0], GREY)
    assert "2 frames" in study.warnings[0]


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    side = int(pictures.MAX_PIXELS**0.5) + 1
    with pytest.raises(StudyError, match="megapixels"):
        picture(tmp_path, Image.new("1", (side, side)))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tif"])
def test_truncated_picture(tmp_path: Path, name: str) -> None:
    noise = Image.fromarray(RNG.integers(0, 255, (64, 64)).astype(np.uint8))
    noise.save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for share in (0.0, 0.05, 0.3, 0.7):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        with pytest.raises(StudyError, match=name) as caught:
            read_study(picture_record(name), tmp_path)
        assert "again" in caught.value.cure


def test_real_brats_voxel_for_voxel(shared_data: Path) -> None:
    """Every study, against an independent reader: SimpleITK, turned by it to LPS, is display orientation."""
    sitk = pytest.importorskip("SimpleITK")
    root = shared_data / "brats"
    records = discover(root, "brats")
    assert len(records) >= 10
    for record in records:
        study = read_study(record, root)
        assert study.modalities == ("flair", "t1", "t1ce", "t2")
        assert study.warnings == ()
        assert all(channel.flags.c_contiguous and channel.dtype == np.int16 for channel in study.channels)
        files = [record.images[name][0] for name in study.modalities] + [record.labels[0]]
        for file, ours in zip(files, (*study.channels, study.labels), strict=True):
            image = sitk.DICOMOrient(sitk.ReadImage(str(root / file)), "LPS")
            assert np.array_equal(sitk.GetArrayViewFromImage(image), ours)
            assert image.GetSpacing()[::-1] == study.spacing_mm == (1.0, 1.0, 1.0)


def test_real_brats_as_nibabel_turns_it(shared_data: Path) -> None:
    root = shared_data / "brats"
    for record in discover(root, "brats")[:2]:
        study = read_study(record, root)
        for name, ours in zip(study.modalities, study.channels, strict=True):
            ras = np.asarray(nib.as_closest_canonical(nib.load(root / record.images[name][0])).dataobj)
            assert np.array_equal(ras[::-1, ::-1].transpose(2, 1, 0), ours)


def test_real_brats_scrambled_by_flips_and_axes(shared_data: Path, tmp_path: Path) -> None:
    """One scan stored in another order of axes is the same study."""
    root = shared_data / "brats"
    record = discover(root, "brats")[0]
    image = nib.load(root / record.images["flair"][0])
    stored = np.asarray(image.dataobj)[60:160, 60:160, 40:100]
    affine = image.affine @ nib.affines.from_matvec(np.eye(3), [60, 60, 40])
    save(tmp_path / "A_flair.nii.gz", stored, affine)
    plain = read_study(record_of("flair"), tmp_path)
    for axes, flips in (((2, 0, 1), (0,)), ((1, 2, 0), (0, 2)), ((0, 1, 2), (0, 1, 2))):
        turn = np.eye(4)[:, [*axes, 3]]
        for axis in flips:
            flip = np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1, stored.shape[axes[axis]] - 1
            turn = turn @ flip
        moved = np.flip(stored.transpose(axes), flips)
        save(tmp_path / "A_flair.nii.gz", moved, affine @ turn)
        study = read_study(record_of("flair"), tmp_path)
        assert np.array_equal(study.channels[0], plain.channels[0])
        assert study.spacing_mm == plain.spacing_mm


def test_real_brats(shared_data: Path) -> None:
    record = next(r for r in discover(shared_data / "brats", "brats") if r.study_id == "BraTS2021_01477")
    study = read_study(record, shared_data / "brats")
    assert study.image.shape == (4, 155, 240, 240)
    assert study.image.dtype == np.int16
    assert study.labels is not None
    assert not (study.labels == 4).any()
    assert (study.labels > 0).any()
    assert study.spacing_mm == (1.0, 1.0, 1.0)


def test_real_lgg_and_kaggle(shared_data: Path) -> None:
    for record in discover(shared_data / "lgg", "lgg")[:4]:
        study = read_study(record, shared_data / "lgg")
        assert study.image.shape[2:] == (256, 256)
        assert "flair" in study.modalities
        assert study.labels is not None
        assert study.labels.any()
    for record in discover(shared_data / "kaggle", "kaggle"):
        study = read_study(record, shared_data / "kaggle")
        assert study.image.ndim == 4
        assert study.image.max() > study.image.min()
