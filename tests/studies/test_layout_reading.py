"""One study in every layout of volumes gives the same voxels and labels as in the BraTS layout."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_writing import AXIAL, SAGITTAL, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import generate_uid
from scipy import ndimage

from slicewise.config import MODALITIES, PhantomConfig
from slicewise.errors import SourceError, StudyError
from slicewise.studies.layouts import discover
from slicewise.studies.phantom import write_phantoms
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

TO_MSD = np.array([0, 2, 1, 0, 3], dtype=np.uint8)  # BraTS 0, 1, 2, 4 as the Decathlon numbers them
MSD_ORDER = ("flair", "t1", "t1ce", "t2")
MSD_INDEX = {
    "name": "BRATS",
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}
DESCRIPTIONS = {"flair": "AX FLAIR", "t1": "AX T1 PRE", "t1ce": "AX T1 POST GD", "t2": "AX T2 TSE"}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    config = PhantomConfig(n_studies=3, shape=(40, 44, 24), spacing_mm=(4.0, 4.0, 5.0))
    write_phantoms(config, 1, folder)
    return folder


def brats(folder: Path) -> tuple[StudyRecord, Study]:
    """The first study that has every part of a tumour."""
    for record in discover(folder, "brats"):
        study = read_study(record, folder)
        if study.labels is not None and set(np.unique(study.labels)) == {0, 1, 2, 4}:
            return record, study
    raise AssertionError("no study with a whole tumour")


def parts(record: StudyRecord, root: Path) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8], NDArray[np.float64]]:
    """Volumes by modality, the label and the affine, as in the files."""
    images = {name: nib.load(root / record.images[name][0]) for name in MODALITIES}
    label = np.asarray(nib.load(root / record.labels[0]).dataobj).astype(np.uint8)
    return {name: np.asarray(image.dataobj) for name, image in images.items()}, label, images["flair"].affine


def save(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)


def write_msd(folder: Path, record: StudyRecord, root: Path, index: Any = MSD_INDEX, order: Any = MSD_ORDER) -> None:
    volumes, label, affine = parts(record, root)
    save(folder / "imagesTr/BRATS_001.nii.gz", np.stack([volumes[name] for name in order], axis=-1), affine)
    save(folder / "labelsTr/BRATS_001.nii.gz", TO_MSD[label], affine)
    for name in ("imagesTr/._BRATS_001.nii.gz", "imagesTs/BRATS_485.nii.gz", "labelsTr/._BRATS_001.nii.gz"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not read")
    if index is not None:
        (folder / "dataset.json").write_text(json.dumps(index))


def write_dicom(folder: Path, record: StudyRecord, root: Path) -> None:
    volumes, _, affine = parts(record, root)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    axes = (to_lps[:3, :2] / spacing[:2]).T
    study = generate_uid()
    for name, volume in volumes.items():
        tags = {"StudyInstanceUID": study, "SeriesDescription": DESCRIPTIONS[name]}
        place = {"axes": axes.tolist(), "spacing": tuple(spacing.tolist()), "origin": tuple(to_lps[:3, 3])}
        assert np.cross(*axes) @ to_lps[:3, 2] > 0
        write_series(folder / f"series_{name}", volume, shuffle=True, **place, **tags)


def write_list(folder: Path, record: StudyRecord, root: Path) -> None:
    names = {**{name: record.images[name][0] for name in MODALITIES}, "label": record.labels[0]}
    for role, path in names.items():
        (folder / "scans").mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, folder / "scans" / f"{'_'.join(reversed(role))}.nii.gz")
    with (folder / "studies.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["study_id", *names])
        writer.writeheader()
        writer.writerow({"study_id": "S"} | {role: f"scans/{'_'.join(reversed(role))}.nii.gz" for role in names})


def only(folder: Path) -> Study:
    (record,) = discover(folder, "x")
    return read_study(record, folder)


def require_same(study: Study, expected: Study, labelled: bool = True) -> None:
    assert study.modalities == expected.modalities
    np.testing.assert_array_equal(study.image, expected.image)
    np.testing.assert_allclose(study.spacing_mm, expected.spacing_mm, rtol=1e-5)
    if labelled:
        assert expected.labels is not None
        assert study.labels is not None
        np.testing.assert_array_equal(study.labels, expected.labels)
        assert study.known_regions == expected.known_regions


@pytest.mark.parametrize("index", [MSD_INDEX, None], ids=["dataset.json", "names alone"])
def test_phantom_as_msd(phantom: Path, tmp_path: Path, index: Any) -> None:
    record, expected = brats(phantom)
    write_msd(tmp_path, record, phantom, index)
    study = only(tmp_path)
    assert (study.record.study_id, study.record.layout) == ("BRATS_001", "msd")
    require_same(study, expected)


def test_msd_channels_and_labels_come_from_its_index(phantom: Path, tmp_path: Path) -> None:
    record, expected = brats(phantom)
    order = ("t1ce", "t1", "flair", "t2")
    index = {"channel_names": {"0": "T1c", "1": "T1n", "2": "Flair", "3": "T2w"}, "labels": {"edema": 1} | {
        "background": 0, "Non-Enhancing Tumor Core": 2, "Enhancing tumour": 3}}  # fmt: skip
    write_msd(tmp_path, record, phantom, index, order)
    require_same(only(tmp_path), expected)


def test_msd_images_without_labels_count_only_by_themselves(phantom: Path, tmp_path: Path) -> None:
    record, expected = brats(phantom)
    write_msd(tmp_path, record, phantom)
    shutil.rmtree(tmp_path / "imagesTs")
    (tmp_path / "imagesTr").rename(tmp_path / "imagesTs")
    study = only(tmp_path)
    assert study.labels is None
    require_same(study, expected, labelled=False)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"modality": {"0": "CT"}}, r"dataset.json: modality is .*'CT'.*not the sequences of a brain tumour study"),
        ({"modality": {"1": "FLAIR"}}, "modality is"),
        ({"modality": {"0": "FLAIR", "1": "t2f"}}, "one of them twice"),
        ({"modality": ["FLAIR"]}, "modality is"),
        ({"labels": {"0": "background", "1": "liver"}}, "labels has 1: liver, which is no part of a tumour"),
        ({"labels": {"x": "edema"}}, "labels has x: edema"),
        ({"labels": {"-1": "edema"}}, "labels has -1"),
        ({"labels": ["edema"]}, "labels is not an object"),
        ([], "not a JSON object"),
    ],
)
def test_another_task_is_refused(phantom: Path, tmp_path: Path, index: Any, message: str) -> None:
    write_msd(tmp_path, brats(phantom)[0], phantom, index)
    with pytest.raises(SourceError, match=message):
        discover(tmp_path, "x")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
INDEX_LIKE = st.fixed_dictionaries(
    {},
    optional={
        key: ANY_JSON
        | st.dictionaries(
            st.sampled_from(["0", "1", "2", "256", "edema", "background"]), words | ANY_JSON, max_size=4
        )
        for key, words in (
            ("modality", st.sampled_from(["FLAIR", "T1w", "t1gd", "T2w", "CT"])),
            ("labels", st.sampled_from(["background", "edema", "enhancing", 1, 3])),
        )
    },
)


@settings(max_examples=150, deadline=None)
@given(index=INDEX_LIKE | ANY_JSON)
def test_any_index_gives_a_sound_record_or_one_error(tmp_path_factory: pytest.TempPathFactory, index: Any) -> None:
    folder = tmp_path_factory.mktemp("msd")
    (folder / "imagesTr").mkdir()
    (folder / "imagesTr/BRATS_001.nii.gz").write_bytes(b"x")
    (folder / "dataset.json").write_text(json.dumps(index))
    try:
        (record,) = discover(folder, "x")
    except SourceError as refused:
        message = refused.message
    else:
        message = "dataset.json"
        require_sound_index(record)
    assert "dataset.json" in message


def require_sound_index(record: StudyRecord) -> None:
    assert set(record.channel_order) <= set(MODALITIES)
    assert set(record.label_map.values()) <= {0, 1, 2, 4}
    assert StudyRecord.model_validate_json(record.model_dump_json()) == record


def test_msd_file_with_another_number_of_volumes_is_named(phantom: Path, tmp_path: Path) -> None:
    write_msd(tmp_path, brats(phantom)[0], phantom, order=MSD_ORDER[:3])
    with pytest.raises(StudyError, match=r"BRATS_001.nii.gz holds 3 volumes, not 4"):
        only(tmp_path)


def test_label_value_that_the_numbering_does_not_know_is_named(phantom: Path, tmp_path: Path) -> None:
    write_msd(tmp_path, brats(phantom)[0], phantom)
    path = tmp_path / "labelsTr/BRATS_001.nii.gz"
    image = nib.load(path)
    data = np.asarray(image.dataobj).copy()
    data[0, 0, 0] = 7
    save(path, data, image.affine)
    with pytest.raises(StudyError, match=r"labelsTr/BRATS_001.nii.gz holds the label value 7 .* 0, 1, 2, 3"):
        only(tmp_path)


def test_phantom_as_dicom(phantom: Path, tmp_path: Path) -> None:
    record, expected = brats(phantom)
    write_dicom(tmp_path, record, phantom)
    study = only(tmp_path)
    assert study.labels is None
    require_same(study, expected, labelled=False)


def test_dicom_series_of_different_grids_meet_in_space(tmp_path: Path) -> None:
    """A blob at one place in mm, scanned axially in thick slices and sagittally in thin ones."""
    blob = np.array([4.0, -6.0, 9.0])  # LPS
    grids = {
        "FLAIR": {"axes": AXIAL, "spacing": (1.0, 1.0, 3.0), "origin": (-30.0, -36.0, -24.0), "shape": (64, 60, 22)},
        "T1": {"axes": SAGITTAL, "spacing": (1.5, 1.5, 1.5), "origin": (-36.0, -40.0, 50.0), "shape": (48, 56, 44)},
    }
    study = generate_uid()
    for name, grid in grids.items():
        axes = np.array([*grid["axes"], np.cross(*grid["axes"])])
        if name == "T1":
            grid["origin"] = (36.0, -40.0, 50.0) if axes[2][0] < 0 else grid["origin"]
        index = np.stack(np.meshgrid(*map(np.arange, grid["shape"]), indexing="ij"), axis=-1)
        places = np.asarray(grid["origin"]) + (index * np.asarray(grid["spacing"])) @ axes
        volume = np.rint(2000 * np.exp(-(((places - blob) / 7) ** 2).sum(axis=-1))).astype(np.uint16)
        assert volume.max() > 1500
        tags = {"StudyInstanceUID": study, "SeriesDescription": name}
        place = {key: grid[key] for key in ("axes", "spacing", "origin")}
        write_series(tmp_path / name, volume, **place, **tags)
    found = only(tmp_path)
    assert found.modalities == ("flair", "t1")
    centres = [
        ndimage.center_of_mass(channel) * np.asarray(found.spacing_mm) for channel in found.image.astype(float)
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=0.3)


def test_phantom_as_list(phantom: Path, tmp_path: Path) -> None:
    record, expected = brats(phantom)
    write_list(tmp_path, record, phantom)
    require_same(only(tmp_path), expected)


@pytest.mark.parametrize("stem", ["BraTS-GLI-00001-100", "BraTS-PED-00001-000"])
def test_resection_cavity_and_paediatric_labels(phantom: Path, tmp_path: Path, stem: str) -> None:
    record, expected = brats(phantom)
    volumes, label, affine = parts(record, phantom)
    new = np.array([0, 1, 2, 0, 3], dtype=np.float32)[label]
    new[:2] = 4
    save(tmp_path / f"{stem}-t2f.nii.gz", volumes["flair"], affine)
    save(tmp_path / f"{stem}-seg.nii.gz", new, affine)
    study = only(tmp_path)
    assert expected.labels is not None
    assert study.labels is not None
    if "GLI" in stem:
        assert study.known_regions == ("WT", "TC", "ET")
        np.testing.assert_array_equal(study.labels, expected.labels)
    else:
        assert study.known_regions == ("WT",)
        assert np.count_nonzero(study.labels) == np.count_nonzero(new)


def test_real_study_in_every_layout(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "brats"
    record, expected = brats(root)
    write_msd(tmp_path / "msd", record, root)
    write_dicom(tmp_path / "dicom", record, root)
    write_list(tmp_path / "list", record, root)
    require_same(only(tmp_path / "msd"), expected)
    require_same(only(tmp_path / "list"), expected)
    require_same(only(tmp_path / "dicom"), expected, labelled=False)


def test_real_sets_read(shared_data: Path) -> None:
    for name, n_modalities in (("brats", {4}), ("lgg", {1, 2, 3}), ("kaggle", {1})):
        for record in discover(shared_data / name, name)[::6]:
            study = read_study(record, shared_data / name)
            assert len(study.modalities) in n_modalities
            assert (study.labels is None) == (name == "kaggle")
