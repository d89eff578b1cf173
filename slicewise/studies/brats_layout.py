"""BraTS 2017–2024 studies by the names of their files, in every variant in which the sets are passed on."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

from slicewise.config import MODALITIES
from slicewise.errors import SourceError
from slicewise.studies.labels import POST_TREATMENT, WHOLE_TUMOUR, LabelScheme
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

Grade = Literal["HGG", "LGG"]
Roles = dict[str, PurePosixPath]
Key = tuple[PurePosixPath, str]

ROLES = (
    {name: name for name in (*MODALITIES, "seg")}
    | {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2"}
    | {"t1gd": "t1ce", "segm": "seg", "glistrboost": "seg", "glistrboost_manuallycorrected": "seg"}
)
ROLE = "|".join(sorted(ROLES, key=len, reverse=True))
NIFTI = r"\.nii(\.gz)?"
BRATS_NAME = re.compile(rf"^((?P<stem>.+)[_-])?(?P<role>{ROLE}){NIFTI}$", re.I)
# Copies of the sets on Kaggle wrap each file in a folder of its name: "A_flair.nii/00000057_brain_flair.nii".
WRAPPER = re.compile(rf"^(?P<stem>.+)[_-](?P<role>{ROLE})({NIFTI})?$", re.I)
NIFTI_NAME = re.compile(rf".{NIFTI}$", re.I)
# "W39_1998.09.19_Segm.nii" is the label of BraTS 2020 patient 355, published under this name.
MISNAMED = re.compile(r"_segm\.nii(\.gz)?$", re.I)
CORRECTED = re.compile(r"manuallycorrected", re.I)
SESSION = re.compile(r"^(?P<patient>(?P<set>BraTS-[A-Za-z]+(?:-RT)?)-\d+)-(?P<session>\d+)$", re.I)
YEARLY = re.compile(r"^Brats1[789]_(?P<name>(?:CBICA|TCIA|TMC|2013)\w*)$", re.I)
TCGA = re.compile(r"^TCGA[-_](?P<site>\w{2})[-_](?P<person>\w{4})(?![A-Za-z0-9])", re.I)
FIRST_POST_TREATMENT_SESSION = 100


def find_brats(paths: Iterable[PurePosixPath], source: str) -> list[StudyRecord]:
    """Studies with one NIfTI file per modality.

    Args:
        paths: All files of the source, relative to it.
        source: The source's short name; also the id of a study that lies bare at the top (``flair.nii.gz``).

    Raises:
        SourceError: A study has two files for one modality; names both.
    """
    studies: dict[Key, Roles] = {}
    paths = list(paths)
    lone = Counter(path.parent for path in paths if NIFTI_NAME.search(path.name))
    for path in paths:
        if place := _place(path, source, alone=lone[path.parent] == 1):
            key, role = place
            _assign(studies.setdefault(key, {}), role, path)
    _adopt_misnamed_labels(studies)
    records = [_record(parent, stem, roles, source) for (parent, stem), roles in studies.items()]
    return [record for record in records if record is not None]


def role_of(name: str) -> str | None:
    """The modality, or ``seg``, that a file's name tells (``BraTS20_001_t1ce.nii.gz``); None where it tells none."""
    match = BRATS_NAME.match(name)
    return ROLES[match["role"].lower()] if match else None


def patient_of(study_id: str) -> str:
    """What a patient is called, as far as the study's name tells.

    Sessions of one patient (``BraTS-GLI-00005-100``, ``-101``) share it, so do the same names of 2017, 2018
    and 2019 (``Brats18_CBICA_AAB_1``), and a TCGA barcode reads as in the LGG set (``TCGA_HT_7473``).
    """
    if tcga := TCGA.match(study_id):
        return f"TCGA_{tcga['site']}_{tcga['person']}".upper()
    if yearly := YEARLY.match(study_id):
        return f"Brats18_{yearly['name']}"
    session = SESSION.match(study_id)
    return session["patient"] if session else study_id


def label_scheme(study_id: str) -> LabelScheme | None:
    """How a study numbers its labels where its name tells that it is not the usual way.

    From session 100 on, studies of the glioma set are post-treatment (BraTS 2024), where 4 is the resection
    cavity. The paediatric set changed its numbers between 2023 and 2024 under the same names: only the
    whole tumour is the same in both.
    """
    session = SESSION.match(study_id)
    if session is None:
        return None
    if session["set"].lower() == "brats-ped":
        return WHOLE_TUMOUR
    after = session["set"].lower() == "brats-gli" and int(session["session"]) >= FIRST_POST_TREATMENT_SESSION
    return POST_TREATMENT if after else None


def _place(path: PurePosixPath, source: str, alone: bool) -> tuple[Key, str] | None:
    """The study that a file belongs to, and its role there."""
    if not NIFTI_NAME.search(path.name):
        return None
    wrapper = WRAPPER.match(path.parent.name) if alone else None
    if wrapper:
        return (path.parent.parent, wrapper["stem"]), ROLES[wrapper["role"].lower()]
    if match := BRATS_NAME.match(path.name):
        return (path.parent, match["stem"] or path.parent.name or source), ROLES[match["role"].lower()]
    return None


def _assign(roles: Roles, role: str, path: PurePosixPath) -> None:
    other = roles.get(role)
    if other is not None and role == "seg":
        # The TCGA collections give the automatic segmentation beside the one corrected by hand.
        corrected = [bool(CORRECTED.search(name.name)) for name in (other, path)]
        if corrected[0] != corrected[1]:
            roles[role] = path if corrected[1] else other
            return
    if other is not None:
        message = f"{path.parent} has two files for {role}: {other.name} and {path.name}"
        raise SourceError(message, "keep one file per modality")
    roles[role] = path


def _adopt_misnamed_labels(studies: dict[Key, Roles]) -> None:
    """Give a lone ``*_Segm.nii`` to the one study beside it that has images and no label."""
    lone = [key for key, roles in studies.items() if set(roles) == {"seg"} and MISNAMED.search(roles["seg"].name)]
    for key in lone:
        beside = [other for other in studies if other[0] == key[0] and other != key]
        if len(beside) == 1 and "seg" not in studies[beside[0]]:
            studies[beside[0]]["seg"] = studies.pop(key)["seg"]


def _record(parent: PurePosixPath, study_id: str, roles: Roles, source: str) -> StudyRecord | None:
    """The record of one study, or None when it has a label and no image."""
    images = {name: (str(roles[name]),) for name in MODALITIES if name in roles}
    if not images:
        logger.warning("%s is left out: it has a label (%s) but no image", parent, roles["seg"].name)
        return None
    scheme = label_scheme(study_id) if "seg" in roles else None
    return StudyRecord(
        study_id=study_id,
        patient_id=patient_of(study_id),
        source=source,
        layout="brats",
        images=images,
        labels=(str(roles["seg"]),) if "seg" in roles else (),
        grade=_grade(parent),
        **(scheme.record_fields() if scheme else {}),
    )


def _grade(parent: PurePosixPath) -> Grade | None:
    """``HGG`` or ``LGG`` from the nearest folder of that name."""
    names = [part.upper() for part in reversed(parent.parts)]
    nearest = next((name for name in names if name in ("HGG", "LGG")), None)
    return "HGG" if nearest == "HGG" else "LGG" if nearest == "LGG" else None
