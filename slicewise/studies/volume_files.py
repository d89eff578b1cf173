"""Studies kept as volumes: NIfTI files, one per modality or one 4D file for all, and DICOM series."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from slicewise.config import MODALITIES
from slicewise.errors import StudyError
from slicewise.studies.dicom_reading import load_series
from slicewise.studies.labels import renumber
from slicewise.studies.msd import channel_order
from slicewise.studies.nifti import NiftiVolume, load_nifti, load_nifti_4d
from slicewise.studies.study import Study, StudyRecord
from slicewise.studies.volume_reading import assemble


def read_volumes(record: StudyRecord, root: Path) -> Study:
    """Read a study of one NIfTI file per modality (layouts ``brats`` and ``nifti``).

    Raises:
        StudyError: A file is missing, damaged or does not fit the others; names the file and the cure.
    """
    volumes = {
        name: load_nifti(root / record.images[name][0], record.study_id)
        for name in MODALITIES
        if name in record.images
    }
    if not volumes:
        raise StudyError(record.study_id, "the record names no image", "give at least one modality")
    return _assembled(record, root, volumes)


def read_msd(record: StudyRecord, root: Path) -> Study:
    """Read a study of one 4D NIfTI file, its volumes in the order of the record's ``channel_order``.

    Raises:
        StudyError: As ``read_volumes``, or the file holds another number of volumes.
    """
    path = root / record.images["volume"][0]
    stack = load_nifti_4d(path, record.study_id)
    order = channel_order(record, stack.data.shape[3], str(path))
    found = {name: dataclasses.replace(stack, data=stack.data[..., i]) for i, name in enumerate(order)}
    return _assembled(record, root, {name: found[name] for name in MODALITIES if name in found})


def read_dicom(record: StudyRecord, root: Path) -> Study:
    """Read one DICOM series per modality; series of different grids are put on one.

    Raises:
        StudyError: A series cannot be read or does not fit the others; names the file and the cure.
    """
    warnings = list(record.notes)
    volumes = {
        name: load_series([root / path for path in files], record.study_id, warnings)
        for name, files in record.images.items()
    }
    if not volumes:
        raise StudyError(record.study_id, "the record names no image", "give at least one modality")
    return assemble(record, volumes, None, warnings)


def _assembled(record: StudyRecord, root: Path, volumes: dict[str, NiftiVolume]) -> Study:
    label = load_nifti(root / record.labels[0], record.study_id) if record.labels else None
    return assemble(record, volumes, None if label is None else renumber(label, record))
