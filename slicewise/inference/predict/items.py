"""What there is to predict in a file or folder: single slices, and whole studies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from slicewise.config import MODALITIES
from slicewise.errors import SourceError, UsageError
from slicewise.files import sha256_file, sha256_json
from slicewise.inference.predict.slice_files import KINDS, is_slice_file
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.brats_layout import NIFTI_NAME, role_of
from slicewise.studies.dataset import study_files
from slicewise.studies.dicom_headers import is_dicom
from slicewise.studies.dicom_layout import find_dicom
from slicewise.studies.layouts import search
from slicewise.studies.picture_layouts import MASK_STEM
from slicewise.studies.study import Layout, StudyRecord

logger = logging.getLogger(__name__)

LABEL = "seg"
CURE = f"give {KINDS} files, NIfTI volumes, study folders, or a folder of them"


@dataclass(frozen=True)
class Item:
    """One thing to predict.

    Attributes:
        name: A study's id, or a picture's path below the folder: unique, and stable between runs.
        kind: A single slice, or a study.
        root: What the files are relative to.
        files: Its files.
        record: Of a study.
    """

    name: str
    kind: Literal["slice", "study"]
    root: Path
    files: tuple[str, ...]
    record: StudyRecord | None = None

    def digest(self) -> str:
        """SHA-256 over its files' names and contents.

        Raises:
            OSError: A file cannot be read.
        """
        return sha256_json([[file, sha256_file(self.root / file)] for file in self.files])


def find_items(
    given: Path, modalities: Sequence[str] | None = None, unknown_modality: str = MODALITIES[0]
) -> list[Item]:
    """What a file or folder holds, sorted by name.

    Labels are left out. A NIfTI file that no study claims is a study by itself. In a folder with a DICOM study,
    DICOM files that are not of it (localisers, other sequences) are left out.

    Args:
        given: The file or folder.
        modalities: Of NIfTI files whose names do not tell; one, or as many as a 4D file has volumes.
        unknown_modality: The modality as which a volume enters where nothing tells.

    Raises:
        SourceError: Missing, or nothing in it can be predicted.
    """
    told = tuple(unknown_modality if name == UNKNOWN_MODALITY else name for name in modalities or (unknown_modality,))
    if given.is_dir():
        items = _in_folder(given, told)
    elif given.is_file():
        items = _of_file(given.parent, PurePosixPath(given.name), told)
    else:
        raise SourceError(f"{given} is not there", "give a file or a folder that exists")
    if not items:
        raise SourceError(f"{given} holds nothing that can be predicted", CURE)
    return sorted(items, key=lambda item: item.name)


def only_item(given: Path, modalities: Sequence[str] | None = None, unknown_modality: str = MODALITIES[0]) -> Item:
    """The one item of a file or folder.

    Raises:
        SourceError: As ``find_items``.
        UsageError: There are several.
    """
    items = find_items(given, modalities, unknown_modality)
    if len(items) > 1:
        raise UsageError(f"{given} holds {len(items)} slices or studies", "give one file or one study's folder")
    return items[0]


def _in_folder(folder: Path, modalities: tuple[str, ...]) -> list[Item]:
    found = search(folder, folder.resolve().name or "folder")
    items = [_of_record(record, folder) for record in found.records]
    has_dicom = any(record.layout == "dicom" for record in found.records)
    for path in found.left:
        if not (has_dicom and _is_dicom(folder / path)) and not MASK_STEM.match(path.stem):
            items += _of_file(folder, path, modalities)
    return items


def _of_record(record: StudyRecord, folder: Path) -> Item:
    if record.layout == "images":
        return _slice(folder, record.images["image"][0])
    # Labels are not looked at, so a damaged one is no reason to fail.
    return _study(folder, record.model_copy(update={"labels": ()}))


def _of_file(root: Path, path: PurePosixPath, modalities: tuple[str, ...]) -> list[Item]:
    """The item of one file; none where it is a label or nothing that can be predicted."""
    if NIFTI_NAME.search(path.name):
        record = _volume(path, modalities)
        return [_study(root, record)] if record else []
    if is_slice_file(root / path):
        return [_slice(root, str(path))]
    if _is_dicom(root / path):
        return [_of_record(record, root) for record in find_dicom(root, [path], "file")]
    logger.info("%s is left out: it is no scan", path.name)
    return []


def _volume(path: PurePosixPath, modalities: tuple[str, ...]) -> StudyRecord | None:
    """A lone NIfTI file: of the modality that its name tells, else that was given; 4D for several."""
    if len(modalities) > 1:
        record = _record(path, "msd", {"volume": (str(path),)})
        return record.model_copy(update={"channel_order": modalities})
    modality = role_of(path.name) or modalities[0]
    return None if modality == LABEL else _record(path, "nifti", {modality: (str(path),)})


def _record(path: PurePosixPath, layout: Layout, images: dict[str, tuple[str, ...]]) -> StudyRecord:
    return StudyRecord(study_id=str(path), patient_id=None, source="file", layout=layout, images=images)


def _slice(root: Path, file: str) -> Item:
    return Item(file, "slice", root, (file,))


def _study(root: Path, record: StudyRecord) -> Item:
    return Item(record.study_id, "study", root, tuple(sorted(study_files(record))), record)


def _is_dicom(path: Path) -> bool:
    try:
        return is_dicom(path)
    except SourceError:
        return True
