"""From volumes to a study: one grid, display orientation, checked intensities and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slicewise.config import MODALITIES
from slicewise.errors import StudyError
from slicewise.studies.alignment import align
from slicewise.studies.geometry import Grid
from slicewise.studies.nifti import NiftiVolume
from slicewise.studies.orientation import display_spacing, to_display
from slicewise.studies.repair import contains, distinct_values, drop_constant, replace_non_finite
from slicewise.studies.study import Study, StudyRecord

ENHANCING, NEW_ENHANCING = 4, 3
LABEL_TOLERANCE = 1e-4


def assemble(
    record: StudyRecord,
    volumes: Mapping[str, NiftiVolume],
    label: NiftiVolume | None,
    warnings: list[str] | None = None,
) -> Study:
    """Put a study's volumes together.

    Args:
        record: The study.
        volumes: By modality.
        label: BraTS values 0, 1, 2, 4 (or 3 for 4), or None.
        warnings: What the reader of the files has to say; more is added.

    Raises:
        StudyError: The volumes do not fit each other, or hold nothing usable; names the file and the cure.
    """
    warnings = [] if warnings is None else warnings
    ordered = {name: volumes[name] for name in MODALITIES if name in volumes}
    if not ordered:
        raise StudyError(record.study_id, "the record names no image", "give at least one modality")
    for volume in [*ordered.values(), *([label] if label else [])]:
        warnings += [note for note in volume.notes if note not in warnings]
    finite = {
        name: dataclasses.replace(v, data=replace_non_finite(v.data, str(v.path), record.study_id, warnings))
        for name, v in ordered.items()
    }
    aligned = align(finite, label, record.study_id, warnings, scanner_frames=record.layout == "dicom")
    reference = next(iter(aligned.values())) if label is None else label
    affine = reference.affine
    channels = {name: volume.data for name, volume in aligned.items()}
    channels = drop_constant(channels, record.study_id, warnings)
    return Study(
        record=record,
        modalities=tuple(channels),
        channels=tuple(to_display(data, affine) for data in channels.values()),
        labels=None if label is None else _display_labels(label, record.study_id),
        known_regions=() if label is None else record.label_regions,
        spacing_mm=display_spacing(affine),
        spacing_known=True,
        warnings=tuple(warnings),
        grid=Grid(affine, reference.data.shape, reference.codes),
    )


def _display_labels(label: NiftiVolume, study_id: str) -> NDArray[np.uint8]:
    """BraTS values 0, 1, 2, 4 as ``[Z, H, W]`` uint8; 3 is enhancing tumour in newer sets and becomes 4."""
    cure = "labels are 0, 1, 2 and 4 (or 3 for 4)"
    low, high = label.data.min(), label.data.max()
    if not (low >= -LABEL_TOLERANCE and high <= ENHANCING + LABEL_TOLERANCE):  # NaN is neither
        wrong = low if low < 0 else high
        raise StudyError(study_id, f"{label.path} holds the label value {wrong:g}", cure)
    if label.data.dtype.kind == "f":
        values = distinct_values(label.data)
        broken = values[np.abs(values - np.rint(values)) > LABEL_TOLERANCE]
        if broken.size:
            raise StudyError(study_id, f"{label.path} holds the label value {broken[0]:g}", cure)
        labels = np.rint(label.data).astype(np.uint8)
    else:
        labels = label.data.astype(np.uint8, copy=False)
    if high >= NEW_ENHANCING - LABEL_TOLERANCE and contains(labels, NEW_ENHANCING):
        if contains(labels, ENHANCING):
            message = f"{label.path} holds both 3 and 4, which both mean enhancing tumour"
            raise StudyError(study_id, message, "use one of the two values")
        labels = np.where(labels == NEW_ENHANCING, np.uint8(ENHANCING), labels)
    return np.ascontiguousarray(to_display(labels, label.affine))
