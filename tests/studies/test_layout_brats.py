from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from slicewise.errors import SourceError
from slicewise.studies.brats_layout import patient_of
from slicewise.studies.layouts import discover, discover_by_name, side_tables
from slicewise.studies.study import StudyRecord

HEADER = (
    "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,"
    "BraTS_2020_subject_ID\n"
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found(folder: Path, *names: str) -> dict[str, StudyRecord]:
    """Studies of empty files of these names, by id; by names alone they must be the same."""
    records = discover(touch(folder, *names), "x")
    paths = [PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]
    assert discover_by_name(paths, "x") == records
    return {record.study_id: record for record in records}


@pytest.mark.parametrize(
    ("stem", "roles", "suffix"),
    [
        ("Brats18_2013_2_1", ("_flair", "_t1", "_t1ce", "_t2", "_seg"), ".nii.gz"),
        ("BraTS19_CBICA_AAB_1", ("_flair", "_t1", "_t1ce", "_t2", "_seg"), ".nii.gz"),
        ("BraTS20_Training_001", ("_flair", "_t1", "_t1ce", "_t2", "_seg"), ".nii"),
        ("BraTS2021_00000", ("_flair", "_t1", "_t1ce", "_t2", "_seg"), ".nii.gz"),
        ("BraTS-GLI-00000-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), ".nii.gz"),
        ("BraTS-MET-00001-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), ".nii.gz"),
        ("BraTS-GoAT-00001", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), ".nii.gz"),
        ("TCGA-02-0006_1996.08.23", ("_flair", "_t1", "_t1Gd", "_t2", "_GlistrBoost"), ".nii.gz"),
        ("A_1", ("_FLAIR", "_T1", "_T1CE", "_T2", "_SEG"), ".NII.GZ"),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_names_of_every_year(tmp_path: Path, stem: str, roles: tuple[str, ...], suffix: str, nested: bool) -> None:
    folder = f"{stem}/" if nested else ""
    names = [f"{folder}{stem}{role}{suffix}" for role in roles]
    others = [f"{folder}other_{role}{suffix}" for role in ("flair", "seg")]
    records = found(tmp_path, *names, *others, "name_list.csv", "README.md")
    record = records[stem]
    assert [*(paths[0] for paths in record.images.values()), *record.labels] == [
        names[index] for index in (0, 1, 2, 3, 4)
    ]
    assert list(record.images) == ["flair", "t1", "t1ce", "t2"]
    assert len(records) == 2


@pytest.mark.parametrize("inner", ["{stem}_{role}.nii", "00000057_brain_{role}.nii", "00000057_final_{role}.nii.gz"])
@pytest.mark.parametrize("wrapper", ["{stem}_{role}.nii", "{stem}_{role}"])
def test_files_in_folders_of_their_own_name(tmp_path: Path, inner: str, wrapper: str) -> None:
    stem = "BraTS2021_00000"
    names = [
        f"{stem}/{wrapper}/{inner}".format(stem=stem, role=role) for role in ("flair", "t1", "t1ce", "t2", "seg")
    ]
    (record,) = found(tmp_path, *names).values()
    assert record.study_id == stem
    assert [*(paths[0] for paths in record.images.values()), *record.labels] == names


def test_bare_role_names_take_the_folder_as_id(tmp_path: Path) -> None:
    records = found(tmp_path, "pat1/flair.nii.gz", "pat1/t1c.nii.gz", "pat2/flair.nii.gz", "t2.nii")
    assert set(records) == {"pat1", "pat2", "x"}
    assert set(records["pat1"].images) == {"flair", "t1ce"}


def test_hand_corrected_label_goes_before_the_automatic_one(tmp_path: Path) -> None:
    stem = "TCGA-02-0006/TCGA-02-0006_1996.08.23"
    (record,) = found(
        tmp_path, f"{stem}_flair.nii.gz", f"{stem}_GlistrBoost_ManuallyCorrected.nii.gz", f"{stem}_GlistrBoost.nii.gz"
    ).values()
    assert record.labels == (f"{stem}_GlistrBoost_ManuallyCorrected.nii.gz",)
    assert record.patient_id == "TCGA_02_0006"


def test_two_files_for_a_modality_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"two files for t1: A_t1.nii and A_t1.nii.gz"):
        discover(touch(tmp_path, "A_t1.nii", "A_t1.nii.gz"), "x")


def test_grade_of_the_nearest_folder(tmp_path: Path) -> None:
    records = found(tmp_path, "set/HGG/A/A_t1.nii", "set/lgg/B/B_t1.nii", "set/C/C_t1.nii", "LGG/hgg/D/D_t1.nii")
    assert {name: record.grade for name, record in records.items()} == {"A": "HGG", "B": "LGG", "C": None, "D": "HGG"}


@pytest.mark.parametrize(
    ("study", "patient"),
    [
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("BraTS-MEN-RT-0000-1", "BraTS-MEN-RT-0000"),
        ("BraTS-GoAT-00001", "BraTS-GoAT-00001"),
        ("Brats17_CBICA_AAB_1", "Brats18_CBICA_AAB_1"),
        ("BraTS19_CBICA_AAB_1", "Brats18_CBICA_AAB_1"),
        ("Brats18_TCIA13_623_1", "Brats18_TCIA13_623_1"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00000", "BraTS2021_00000"),
        ("TCGA-HT-7473_1997.08.26", "TCGA_HT_7473"),
        ("Phantom_0001", "Phantom_0001"),
    ],
)
def test_patient_told_by_the_study(study: str, patient: str) -> None:
    assert patient_of(study) == patient


def test_sets_with_other_label_numbers(tmp_path: Path) -> None:
    stems = ("BraTS-GLI-00001-000", "BraTS-GLI-00001-101", "BraTS-PED-00001-000", "BraTS2021_00001")
    records = found(tmp_path, *(f"{stem}-{role}.nii.gz" for stem in stems for role in ("t2f", "seg")))
    assert {stem: (records[stem].label_map, records[stem].label_regions) for stem in stems} == {
        "BraTS-GLI-00001-000": ({}, ("WT", "TC", "ET")),
        "BraTS-GLI-00001-101": ({1: 1, 2: 2, 3: 4, 4: 0}, ("WT", "TC", "ET")),
        "BraTS-PED-00001-000": ({1: 2, 2: 2, 3: 2, 4: 2, 255: 2}, ("WT",)),
        "BraTS2021_00001": ({}, ("WT", "TC", "ET")),
    }


def test_mapping_joins_names_of_a_person_and_tells_the_grade(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{stem}/{stem}_flair.nii" for stem in ("BraTS20_Training_001", "BraTS20_Training_300", "B_1")))
    touch(tmp_path, "LGG/Brats18_TCIA13_623_1/Brats18_TCIA13_623_1_flair.nii", "survival_info.csv")
    rows = [
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001",
        "LGG,Brats17_TCIA_623_1,Brats18_TCIA13_623_1,TCGA-HT-7473,BraTS19_TCIA13_623_1,BraTS20_Training_300",
    ]
    (tmp_path / "name_mapping.csv").write_text("\ufeff" + HEADER + "\n".join(rows), encoding="utf-8")
    records = {record.study_id: record for record in discover(tmp_path, "x")}
    assert {name: (record.patient_id, record.grade) for name, record in records.items()} == {
        "BraTS20_Training_001": ("Brats18_CBICA_AAB_1", "HGG"),
        "BraTS20_Training_300": ("TCGA_HT_7473", "LGG"),
        "Brats18_TCIA13_623_1": ("TCGA_HT_7473", "LGG"),
        "B_1": ("B_1", None),
    }
    assert discover_by_name([PurePosixPath("studies.csv"), PurePosixPath("A_t1.nii")], "x") == []
    paths = [
        PurePosixPath("a/name_mapping_validation_data.csv"),
        PurePosixPath("a/b.nii"),
        PurePosixPath("dataset.json"),
    ]
    assert side_tables(paths) == [paths[0], paths[2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "name_mapping.csv cannot be read"),
        (b'Grade,"BraTS_2020', None),
        (b"", None),
        (b"a,b\n1,2", None),
    ],
)
def test_unreadable_mapping_is_named_and_other_tables_are_passed_over(
    tmp_path: Path, content: bytes, message: str | None
) -> None:
    touch(tmp_path, "A/A_t1.nii")
    (tmp_path / "name_mapping.csv").write_bytes(content)
    if message:
        with pytest.raises(SourceError, match=message):
            discover(tmp_path, "x")
    else:
        assert [record.patient_id for record in discover(tmp_path, "x")] == ["A"]
