from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from slicewise.errors import SourceError
from slicewise.studies.layouts import discover, discover_by_name


def write(folder: Path, *names: str) -> Path:
    """Files whose content is their own name, so that no two of different names are alike."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(Path(name).name)
    return folder


def test_second_copy_of_the_kaggle_images_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["yes/Y1.jpg", "no/1 no.jpeg"]
    write(tmp_path, *names, *(f"brain_tumor_dataset/{name}" for name in names))
    records = discover(tmp_path, "kaggle")
    assert [record.study_id for record in records] == ["kaggle_no_1_no", "kaggle_yes_Y1"]
    assert [record.images["image"] for record in records] == [("no/1 no.jpeg",), ("yes/Y1.jpg",)]
    assert "2 files are left out as copies of others, e.g. brain_tumor_dataset/" in caplog.text
    paths = [PurePosixPath(path.relative_to(tmp_path).as_posix()) for path in tmp_path.rglob("*.*")]
    assert discover_by_name(paths, "kaggle") == records


def test_same_place_with_other_content_stays(tmp_path: Path) -> None:
    write(tmp_path, "yes/Y1.jpg", "brain_tumor_dataset/yes/Y1.jpg")
    (tmp_path / "yes/Y1.jpg").write_text("another picture")
    assert len(discover(tmp_path, "kaggle")) == 2


def test_same_name_in_train_and_test_stays(tmp_path: Path) -> None:
    write(tmp_path, "train/yes/1.jpg", "test/yes/1.jpg")
    records = discover(tmp_path, "k")
    assert len({record.study_id for record in records}) == 2


def test_second_copy_of_kaggle_3m_is_left_out(tmp_path: Path) -> None:
    stem = "kaggle_3m/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909"
    names = [f"{stem}_{number}{mask}.tif" for number in (1, 2) for mask in ("", "_mask")]
    write(tmp_path, *names, *(f"lgg-mri-segmentation/{name}" for name in names), "kaggle_3m/data.csv")
    (record,) = discover(tmp_path, "lgg")
    assert record.images["slices"] == (f"{stem}_1.tif", f"{stem}_2.tif")
    assert record.grade == "LGG"


def test_all_patients_in_one_folder_in_any_case(tmp_path: Path) -> None:
    names = [f"{study}_{n}{mask}.TIF" for study in ("TCGA_CS_4941_19960909", "tcga_ht_7473_19970826")
             for n in (1, 2) for mask in ("", "_MASK")]  # fmt: skip
    records = discover(write(tmp_path, *names), "lgg")
    assert [record.patient_id for record in records] == ["TCGA_CS_4941", "TCGA_HT_7473"]
    assert all(len(record.labels) == 2 for record in records)


def test_one_slice_number_twice_is_refused(tmp_path: Path) -> None:
    stem = "TCGA_CS_4941_19960909"
    with pytest.raises(SourceError, match=rf"slice 1 twice: {stem}_01.tif and {stem}_1.tif"):
        discover(write(tmp_path, f"{stem}_1.tif", f"{stem}_01.tif"), "lgg")


@pytest.mark.parametrize(
    ("folder", "tumour"),
    [
        ("yes", True), ("No", False), ("Training/glioma", True), ("Testing/pituitary_tumor", True),
        ("meningioma tumor", True), ("no_tumor", False), ("notumor", False), ("no-tumour", False),
        ("Healthy", False), ("Brain Tumor", True), ("tumorous", True),
    ],
)  # fmt: skip
def test_class_folders(tmp_path: Path, folder: str, tumour: bool) -> None:
    (record,) = discover(write(tmp_path, f"{folder}/a.png"), "k")
    assert record.tumour is tumour


def test_masks_beside_images_are_no_images(tmp_path: Path) -> None:
    (record,) = discover(write(tmp_path, "yes/a.png", "yes/a_mask.png"), "k")
    assert record.images["image"] == ("yes/a.png",)
