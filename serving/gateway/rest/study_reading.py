"""An uploaded study into memory, by the library's own readers; errors name the caller's files, never our folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.picture_stack import read_pictures
from serving.gateway.rest.study_files import CURE, StoredFile
from serving.gateway.rest.study_sizes import require_size
from serving.gateway.rest.tiff_stack import read_tiffs
from slicewise.config import MODALITIES
from slicewise.errors import InputError, SourceError, StudyError
from slicewise.studies.brats_layout import role_of
from slicewise.studies.layouts import discover
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

STUDY_ID = "upload"
LABEL = "seg"
VOLUME_LAYOUTS = frozenset({"brats", "nifti", "msd", "dicom"})


@dataclass(frozen=True)
class Reading:
    """What the reader needs to know beside the files.

    Attributes:
        parameters: The request's.
        unknown_modality: The channel by which a file of unknown modality enters.
        max_voxels: Of one modality.
    """

    parameters: StudyParameters
    unknown_modality: str
    max_voxels: int


def read_upload_study(files: Sequence[StoredFile], folder: Path, reading: Reading) -> Study:
    """Read the one study that the files make.

    Args:
        files: All of an upload.
        folder: Where they lie.
        reading: Parameters and limits.

    Raises:
        TooLargeError: More voxels than allowed.
        InputError: No study, several, or one that is damaged; names the file and the cure.
    """
    with _told_by_name(folder):
        kinds = {file.kind for file in files if file.kind}
        if kinds == {"picture"}:
            return read_pictures([file.path for file in files if file.kind], reading.parameters, reading.max_voxels)
        if kinds == {"tiff"}:
            return read_tiffs(folder, STUDY_ID, reading.parameters, reading.max_voxels)
        loose = all(file.field for file in files)
        if len(kinds) > 1 and loose:
            raise InputError(f"the files are of several kinds: {', '.join(sorted(kinds))}", CURE)
        record, notes = _named(files, reading) if loose and kinds == {"nifti"} else (_discovered(folder), ())
        require_size(record, folder, reading.max_voxels)
        study = read_study(record, folder)
        return replace(study, warnings=tuple(_plain(text, folder) for text in (*study.warnings, *notes)))


def _named(files: Sequence[StoredFile], reading: Reading) -> tuple[StudyRecord, tuple[str, ...]]:
    """NIfTI files whose modality the parameter, the form field or the file's name tells."""
    told, notes = reading.parameters.modalities, []
    if told is not None and len(told) != len(files):
        raise InputError(f"modalities: {len(told)} names for {len(files)} files", "name the modality of each file")
    images: dict[str, tuple[str, ...]] = {}
    for index, file in enumerate(files):
        name = told[index] if told else _modality(file, len(files))
        if name == LABEL:
            notes.append(f"{file.path.name} is a label and was not looked at")
            continue
        if name == "unknown":
            name = reading.unknown_modality
            notes.append(f"the modality of {file.path.name} is not told: it was taken as {name}")
        if name not in MODALITIES:
            raise InputError(f"modalities: {name!r} is unknown", f"use {', '.join(MODALITIES)} or unknown")
        if name in images:
            raise InputError(f"two files are {name}: {images[name][0]} and {file.path.name}", "send one file of each")
        images[name] = (file.path.name,)
    if not images:
        raise InputError("the upload holds no scan, only a label", CURE)
    return StudyRecord(study_id=STUDY_ID, patient_id=None, source=STUDY_ID, layout="nifti", images=images), tuple(
        notes
    )


def _modality(file: StoredFile, n_files: int) -> str:
    if file.field.lower() in MODALITIES:
        return file.field.lower()
    if role := role_of(file.path.name):
        return role
    if n_files == 1:
        return "unknown"
    raise InputError(
        f"the modality of {file.path.name} is not told",
        f"use the form fields {', '.join(MODALITIES)}, the parameter modalities, or names like x_flair.nii",
    )


def _discovered(folder: Path) -> StudyRecord:
    """The one study in an archive or among DICOM files; labels are left out."""
    records = [record for record in discover(folder, STUDY_ID) if record.layout in VOLUME_LAYOUTS]
    if not records:
        raise InputError("the upload holds no study of volumes", CURE)
    if len(records) > 1:
        names = ", ".join(record.study_id for record in records[:5])
        raise InputError(f"the upload holds {len(records)} studies: {names}", "send one study in one request")
    return records[0].model_copy(update={"study_id": STUDY_ID, "labels": ()})


@contextlib.contextmanager
def _told_by_name(folder: Path) -> Iterator[None]:
    """The library's errors as the caller's: 400, and without our folder."""
    try:
        yield
    except (StudyError, SourceError) as error:
        raise InputError(_plain(error.message, folder), _plain(error.cure, folder)) from error


def _plain(text: str, folder: Path) -> str:
    """Without the folder's path, and without the study id that nobody gave."""
    bare = text.replace(f"{folder}/", "").replace(str(folder), "the upload")
    return bare.removeprefix(f"study {STUDY_ID}: ")
