"""Which studies a folder holds: the layouts in which people have brain MRI on disk (``docs/layouts.md``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slicewise.errors import SourceError
from slicewise.studies.brats_layout import find_brats
from slicewise.studies.copies import drop_copies, same_content
from slicewise.studies.dicom_layout import find_dicom
from slicewise.studies.msd import INDEX_NAME, apply_indexes, find_msd
from slicewise.studies.name_mapping import apply_mappings, is_mapping
from slicewise.studies.named_nifti import is_list, read_listed
from slicewise.studies.picture_layouts import find_images, find_lgg
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

KNOWN_LAYOUTS = (
    "known layouts: BraTS (*_flair/_t1/_t1ce/_t2/_seg or -t2f/-t1n/-t1c/-t2w/-seg, .nii or .nii.gz); MSD "
    "Task01_BrainTumour; LGG kaggle_3m (<patient>_<n>.tif and _mask.tif); images in folders named yes and no, or "
    "after a tumour; DICOM series of MRI; or list any NIfTI files in a studies.csv"
)


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        records: The studies, sorted by study id.
        left: Files that none of them uses, relative to the folder; none where a list decides.
    """

    records: tuple[StudyRecord, ...]
    left: tuple[PurePosixPath, ...]


def discover(folder: Path, source: str) -> list[StudyRecord]:
    """List the studies below ``folder``, sorted by study id.

    A ``studies.csv`` or ``studies.json`` at the top decides alone. Else the layouts told by names are looked
    for, and what they leave over is looked into for DICOM. Hidden files and ``__MACOSX`` are passed over, and
    so is the second of two copies of one tree. Two studies of one name, e.g. one folder under HGG and LGG,
    are refused, as they are probably one patient twice; images that differ only in their extension
    both stay, the extension added to their ids.

    Args:
        folder: Where to look, at any depth.
        source: The source's short name, written into each record.

    Returns:
        Records with file paths relative to ``folder``, in POSIX form.

    Raises:
        SourceError: The folder is missing, unreadable or empty, of no known layout, has two studies of one id,
            or a table in it is wrong.
    """
    found = search(folder, source, alone=True)
    if not found.records:
        message = f"{folder} holds {len(found.left)} files but no study of a known layout"
        raise SourceError(message, KNOWN_LAYOUTS)
    return list(found.records)


def search(folder: Path, source: str, *, alone: bool = False) -> Found:
    """As ``discover``, for a folder that may hold no study: the files that no study uses are told, too.

    Args:
        folder: Where to look, at any depth.
        source: The source's short name, written into each record.
        alone: Whether DICOM files of which no series can be used are an error, where nothing else was found.

    Raises:
        SourceError: As ``discover``, save that there may be no study.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder", "give the folder that holds the studies")
    listed = read_listed(folder, source)
    if listed is not None:
        return Found(tuple(sorted(listed, key=lambda record: record.study_id)), ())
    paths = _visible_files(folder)
    if not paths:
        raise SourceError(f"{folder} holds no files", KNOWN_LAYOUTS)
    kept = drop_copies(paths, lambda one, other: same_content(folder / one, folder / other))
    records = apply_indexes(apply_mappings(_find_by_name(kept, source), folder, kept), folder, kept)
    records += find_dicom(folder, _left_over(kept, records), source, alone=alone and not records)
    _refuse_repeats(records, str(folder))
    return Found(tuple(sorted(records, key=lambda record: record.study_id)), tuple(_left_over(kept, records)))


def discover_by_name(paths: Sequence[PurePosixPath], source: str) -> list[StudyRecord]:
    """List the studies that file names alone tell, without opening anything; sorted by study id.

    For choosing what to fetch from a remote listing. Tables beside the images (``side_tables``) can add
    grades, patient ids and label numberings once they are there: ``discover`` on the fetched folder does it.
    A file below a folder with the same path as one above it counts as its copy.

    Args:
        paths: Files relative to the source.
        source: The source's short name.

    Returns:
        Records of the layouts ``brats``, ``msd``, ``lgg`` and ``images``; empty where there are none, or where
        a ``studies.csv`` or ``studies.json`` decides.

    Raises:
        SourceError: Two studies have one id, or a study has two files for one modality.
    """
    if any(is_list(path) for path in paths):
        return []
    visible = sorted({path for path in paths if not any(_is_hidden(part) for part in path.parts)})
    records = _find_by_name(drop_copies(visible, lambda one, other: True), source)
    _refuse_repeats(records, source)
    return sorted(records, key=lambda record: record.study_id)


def side_tables(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The small tables among a source's files that ``discover`` reads: fetch them with the studies."""
    return [path for path in paths if is_mapping(path) or is_list(path) or path.name == INDEX_NAME]


def _visible_files(folder: Path) -> list[PurePosixPath]:
    """Files below ``folder``, relative and sorted; links to folders are not followed."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        base = Path(parent).relative_to(folder)
        found += [PurePosixPath((base / name).as_posix()) for name in files if not _is_hidden(name)]
    return sorted(path for path in found if _is_text(path))


def _refuse(error: OSError) -> None:
    raise SourceError(f"{error.filename} cannot be listed ({error.strerror})", "check the folder's permissions")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_text(path: PurePosixPath) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        logger.warning("%r is left out: its name is not UTF-8; rename it", str(path))
        return False
    return True


def _find_by_name(paths: Sequence[PurePosixPath], source: str) -> list[StudyRecord]:
    """Each layout in turn, over the files that the earlier ones left."""
    records: list[StudyRecord] = []
    for find in (find_brats, find_msd, find_lgg, find_images):
        records += find(_left_over(paths, records), source)
    return records


def _left_over(paths: Iterable[PurePosixPath], records: Iterable[StudyRecord]) -> list[PurePosixPath]:
    used = {path for record in records for files in (*record.images.values(), record.labels) for path in files}
    return [path for path in paths if str(path) not in used]


def _refuse_repeats(records: Iterable[StudyRecord], where: str) -> None:
    seen: dict[str, str] = {}
    for record in records:
        first = next(iter(record.images.values()))[0]
        if record.study_id in seen:
            raise SourceError(
                f"{where} has two studies named {record.study_id}: {seen[record.study_id]} and {first}",
                "remove one of them, or rename its files if they are different patients",
            )
        seen[record.study_id] = first
