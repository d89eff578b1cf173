from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicewise.errors import SourceError
from slicewise.studies.layouts import discover, discover_by_name
from slicewise.studies.study import StudyRecord


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_brats_nested_any_case_and_subset(tmp_path: Path) -> None:
    touch(tmp_path, "HGG/A_1/A_1_flair.nii.gz", "HGG/A_1/A_1_T1CE.NII.GZ", "HGG/A_1/A_1_seg.nii.gz")
    touch(tmp_path, "LGG/B_1/B_1_t2.nii", "LGG/B_1/._B_1_t1.nii", "__MACOSX/B_1/B_1_t1.nii", "LGG/.DS_Store")
    a, b = discover(tmp_path, "brats")
    assert (a.study_id, a.patient_id, a.layout) == ("A_1", "A_1", "brats")
    assert a.images == {"flair": ("HGG/A_1/A_1_flair.nii.gz",), "t1ce": ("HGG/A_1/A_1_T1CE.NII.GZ",)}
    assert a.labels == ("HGG/A_1/A_1_seg.nii.gz",)
    assert b.images == {"t2": ("LGG/B_1/B_1_t2.nii",)}
    assert b.labels == ()


def test_newer_names_and_patient(tmp_path: Path) -> None:
    stem = "BraTS-GLI-00001-000"
    touch(tmp_path, *(f"{stem}/{stem}-{role}.nii.gz" for role in ("t2f", "t1n", "t1c", "t2w", "seg")))
    (record,) = discover(tmp_path, "x")
    assert record.patient_id == "BraTS-GLI-00001"
    assert record.images["t1ce"] == (f"{stem}/{stem}-t1c.nii.gz",)
    assert list(record.images) == ["flair", "t1", "t1ce", "t2"]


def test_misnamed_label_of_patient_355(tmp_path: Path) -> None:
    stem = "BraTS20_Training_355"
    touch(tmp_path, f"{stem}/{stem}_flair.nii", f"{stem}/W39_1998.09.19_Segm.nii")
    (record,) = discover(tmp_path, "x")
    assert record.study_id == stem
    assert record.labels == (f"{stem}/W39_1998.09.19_Segm.nii",)


def test_label_without_images_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "A/A_seg.nii.gz", "B/B_t1.nii.gz")
    assert [record.study_id for record in discover(tmp_path, "x")] == ["B"]
    assert "A_seg.nii.gz" in caplog.text


def test_lgg_slices_in_order_of_number(tmp_path: Path) -> None:
    stem = "TCGA_CS_5393_19990606"
    touch(tmp_path, *(f"{stem}/{stem}_{n}{mask}.tif" for n in (10, 2, 1) for mask in ("", "_mask")))
    (record,) = discover(tmp_path, "lgg")
    assert (record.study_id, record.patient_id, record.layout) == (stem, "TCGA_CS_5393", "lgg")
    assert record.images["slices"] == tuple(f"{stem}/{stem}_{n}.tif" for n in (1, 2, 10))
    assert record.labels == tuple(f"{stem}/{stem}_{n}_mask.tif" for n in (1, 2, 10))


def test_lgg_missing_mask_is_named(tmp_path: Path) -> None:
    stem = "TCGA_CS_5393_19990606"
    touch(tmp_path, f"{stem}/{stem}_1.tif", f"{stem}/{stem}_1_mask.tif", f"{stem}/{stem}_2.tif")
    with pytest.raises(SourceError, match=f"{stem}_2.tif"):
        discover(tmp_path, "lgg")


def test_images_by_folder_with_unique_ids(tmp_path: Path) -> None:
    touch(tmp_path, "yes/Y1.JPG", "yes/Y1.png", "yes/Y2.jpeg", "no/1 no.jpeg", "no/readme.txt")
    records = {record.images["image"][0]: record for record in discover(tmp_path, "kaggle")}
    assert {path: record.study_id for path, record in records.items()} == {
        "yes/Y1.JPG": "kaggle_yes_Y1_JPG",
        "yes/Y1.png": "kaggle_yes_Y1_png",
        "yes/Y2.jpeg": "kaggle_yes_Y2",
        "no/1 no.jpeg": "kaggle_no_1_no",
    }
    assert records["yes/Y2.jpeg"].tumour is True
    assert records["no/1 no.jpeg"].tumour is False
    assert all(record.patient_id is None for record in records.values())


@pytest.mark.parametrize("names", [[], ["a.txt"], ["maybe/a.png"], [".hidden.nii"]])
def test_nothing_known_says_what_is(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(SourceError, match=r"BraTS.*LGG.*yes and no"):
        discover(touch(tmp_path, *names), "x")


def test_repeated_study_names_both_paths(tmp_path: Path) -> None:
    touch(tmp_path, "HGG/A/A_t1.nii", "LGG/A/A_t1.nii")
    with pytest.raises(SourceError, match=r"HGG/A/A_t1.nii and LGG/A/A_t1.nii"):
        discover(tmp_path, "x")


def test_real_sets(shared_data: Path) -> None:
    found = {name: discover(shared_data / name, name) for name in ("brats", "lgg", "kaggle")}
    assert {name: len(records) for name, records in found.items()} == {"brats": 10, "lgg": 18, "kaggle": 193}
    assert all(len(record.images) == 4 and record.labels for record in found["brats"])


FOLDERS = st.sampled_from(
    ["HGG", "LGG", "yes", "no", "glioma", "A", "a", "imagesTr", "imagesTs", "labelsTr", "A_flair.nii", "x y", ".git"]
)
STEMS = st.sampled_from(["A", "BraTS-GLI-00001-100", "TCGA_CS_4941_19960909", "BRATS_001", "Y1", "W39", "", "é"])
ROLES = st.sampled_from(
    ["_flair", "_T1", "_t1ce", "-t2w", "_seg", "-seg", "_Segm", "_1", "_01", "_1_mask", "_mask", ""]
)
SUFFIXES = st.sampled_from([".nii", ".nii.gz", ".NII", ".tif", ".png", ".JPG", ".csv", ".json", ".dcm", ""])
NAMES = st.builds(lambda *parts: "".join(parts), STEMS, ROLES, SUFFIXES).filter(
    lambda name: name not in ("", ".", "..")
)
LIKELY = st.builds(lambda folders, name: "/".join([*folders, name]), st.lists(FOLDERS, max_size=3), NAMES)
ODD = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.builds(
    lambda likely, odd: list(dict.fromkeys([*likely, *odd])),
    st.lists(LIKELY, min_size=4, max_size=24),
    st.lists(ODD, max_size=2),
)


def require_sound(records: list[StudyRecord], names: set[str]) -> None:
    used = [path for record in records for paths in (*record.images.values(), record.labels) for path in paths]
    assert set(used) <= names
    assert len(set(used)) == len(used)
    ids = [record.study_id for record in records]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert all(StudyRecord.model_validate_json(record.model_dump_json()) == record for record in records)


@settings(max_examples=300, deadline=None)
@given(names=PATHS)
def test_any_names_give_sound_records_or_one_error(names: list[str]) -> None:
    try:
        records = discover_by_name([PurePosixPath(name) for name in names], "x")
    except SourceError:
        return
    require_sound(records, {str(PurePosixPath(name)) for name in names})


@settings(max_examples=100, deadline=None)
@given(names=PATHS)
def test_any_folder_gives_sound_records_or_one_error(tmp_path_factory: Any, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in names:
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        except OSError:
            continue  # a file where a folder should be, or the other way round
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    try:
        records = discover(folder, "x")
    except SourceError:
        return
    require_sound(records, there)
