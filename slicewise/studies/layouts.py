"""Which studies a folder holds: three layouts in which people have brain MRI on disk."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from slicewise.config import MODALITIES
from slicewise.errors import SourceError
from slicewise.studies.picture_layouts import find_images, find_lgg
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

KNOWN_LAYOUTS = (
    "known layouts: BraTS (a folder per study with *_flair/_t1/_t1ce/_t2/_seg or -t2f/-t1n/-t1c/-t2w/-seg, "
    ".nii or .nii.gz); LGG kaggle_3m (<patient>_<n>.tif with <patient>_<n>_mask.tif); images in folders "
    "named yes and no"
)
ROLES = (
    {name: name for name in (*MODALITIES, "seg")}
    | {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2"}
    | {"segm": "seg"}
)
BRATS_NAME = re.compile(r"^(?P<stem>.+)[_-](?P<role>flair|t1ce|t1|t2|seg|segm|t2f|t1n|t1c|t2w)\.nii(\.gz)?$", re.I)
# "W39_1998.09.19_Segm.nii" is the label of BraTS 2020 patient 355, published under this name.
MISNAMED = re.compile(r"_segm\.nii(\.gz)?$", re.I)
BRATS_GLI = re.compile(r"^(?P<patient>BraTS-[A-Za-z]+-\d+)-\d{3}$")


def discover(folder: Path, source: str) -> list[StudyRecord]:
    """List the studies below ``folder``, sorted by study id.

    Hidden files and ``__MACOSX`` are passed over. Two studies of one name, e.g. one folder under HGG and LGG,
    are refused, as they are probably one patient twice; images that differ only in their extension
    both stay, the extension added to their ids.

    Args:
        folder: Where to look, at any depth.
        source: The source's short name, written into each record.

    Returns:
        Records with file paths relative to ``folder``, in POSIX form.

    Raises:
        SourceError: The folder is missing or empty, of no known layout, or has two studies of one id.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder", "give the folder that holds the studies")
    paths = _visible_files(folder)
    if not paths:
        raise SourceError(f"{folder} holds no files", KNOWN_LAYOUTS)
    records = [*_find_brats(paths, source), *find_lgg(paths, source), *find_images(paths, source)]
    if not records:
        raise SourceError(f"{folder} holds {len(paths)} files but no study of a known layout", KNOWN_LAYOUTS)
    _refuse_repeats(records, folder)
    return sorted(records, key=lambda record: record.study_id)


def _visible_files(folder: Path) -> list[PurePosixPath]:
    """Files below ``folder``, relative and sorted; links to folders are not followed."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        base = Path(parent).relative_to(folder)
        found += [PurePosixPath((base / name).as_posix()) for name in files if not name.startswith(".")]
    return sorted(found)


def _find_brats(paths: Iterable[PurePosixPath], source: str) -> list[StudyRecord]:
    studies: dict[tuple[PurePosixPath, str], dict[str, PurePosixPath]] = {}
    for path in paths:
        if match := BRATS_NAME.match(path.name):
            roles = studies.setdefault((path.parent, match["stem"]), {})
            role = ROLES[match["role"].lower()]
            if role in roles:
                raise SourceError(
                    f"{path.parent} has two files for {role}: {roles[role].name} and {path.name}",
                    "keep one file per modality",
                )
            roles[role] = path
    _adopt_misnamed_labels(studies)
    records = [_brats_record(parent, stem, roles, source) for (parent, stem), roles in studies.items()]
    return [record for record in records if record is not None]


def _adopt_misnamed_labels(studies: dict[tuple[PurePosixPath, str], dict[str, PurePosixPath]]) -> None:
    """Give a lone ``*_Segm.nii`` to the one study beside it that has images and no label."""
    lone = [key for key, roles in studies.items() if set(roles) == {"seg"} and MISNAMED.search(roles["seg"].name)]
    for key in lone:
        beside = [other for other in studies if other[0] == key[0] and other != key]
        if len(beside) == 1 and "seg" not in studies[beside[0]]:
            studies[beside[0]]["seg"] = studies.pop(key)["seg"]


def _brats_record(
    parent: PurePosixPath, study_id: str, roles: dict[str, PurePosixPath], source: str
) -> StudyRecord | None:
    """The record of one BraTS study, or None when it has a label and no image."""
    images = {name: (str(roles[name]),) for name in MODALITIES if name in roles}
    if not images:
        logger.warning("%s is left out: it has a label (%s) but no image", parent, roles["seg"].name)
        return None
    gli = BRATS_GLI.match(study_id)
    return StudyRecord(
        study_id=study_id,
        patient_id=gli["patient"] if gli else study_id,
        source=source,
        layout="brats",
        images=images,
        labels=(str(roles["seg"]),) if "seg" in roles else (),
    )


def _refuse_repeats(records: Iterable[StudyRecord], folder: Path) -> None:
    seen: dict[str, str] = {}
    for record in records:
        first = next(iter(record.images.values()))[0]
        if record.study_id in seen:
            raise SourceError(
                f"{folder} has two studies named {record.study_id}: {seen[record.study_id]} and {first}",
                "remove one of them, or rename its files if they are different patients",
            )
        seen[record.study_id] = first
