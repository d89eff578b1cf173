"""From a record to a study in memory: three layouts, one result, every fault named."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewise.config import MODALITIES
from slicewise.errors import StudyError
from slicewise.studies.nifti import NiftiVolume, load_nifti
from slicewise.studies.orientation import display_spacing, restore_orientation, to_display
from slicewise.studies.picture_reading import read_image, read_lgg
from slicewise.studies.repair import drop_constant, replace_non_finite
from slicewise.studies.study import Study, StudyRecord

__all__ = ["read_study", "restore_orientation"]

logger = logging.getLogger(__name__)

ENHANCING, NEW_ENHANCING = 4, 3
KNOWN_LABELS = (0, 1, 2, 3, 4)
AFFINE_TOLERANCE_VOXELS = 0.1


def read_study(record: StudyRecord, root: Path) -> Study:
    """Read one study and turn it to display orientation.

    Args:
        record: Which files, and how to read them.
        root: The folder that the record's paths are relative to.

    Returns:
        The study; ``warnings`` says what was repaired or left out.

    Raises:
        StudyError: A file is missing, damaged or does not fit the others; names the file and the cure.
    """
    readers: dict[str, Callable[[StudyRecord, Path], Study]] = {
        "brats": _read_brats,
        "lgg": read_lgg,
        "images": read_image,
    }
    study = readers[record.layout](record, root)
    for warning in study.warnings:
        logger.warning("study %s: %s", record.study_id, warning)
    return study


def _read_brats(record: StudyRecord, root: Path) -> Study:
    warnings: list[str] = []
    present = [name for name in MODALITIES if name in record.images]
    volumes = {name: load_nifti(root / record.images[name][0], record.study_id) for name in present}
    if not volumes:
        raise StudyError(record.study_id, "the record names no image", "give at least one modality")
    first = volumes[present[0]]
    label = load_nifti(root / record.labels[0], record.study_id) if record.labels else None
    for other in [*volumes.values(), *([label] if label else [])]:
        _require_same_frame(first, other, record.study_id)
    channels = {
        name: replace_non_finite(v.data, str(v.path), record.study_id, warnings) for name, v in volumes.items()
    }
    channels = drop_constant(channels, record.study_id, warnings)
    return Study(
        record=record,
        modalities=tuple(channels),
        image=np.stack([to_display(data, first.affine) for data in channels.values()]),
        labels=None if label is None else _display_labels(label, record.study_id),
        known_regions=() if label is None else ("WT", "TC", "ET"),
        spacing_mm=display_spacing(first.affine),
        spacing_known=True,
        warnings=tuple(warnings),
    )


def _require_same_frame(first: NiftiVolume, other: NiftiVolume, study_id: str) -> None:
    """Same shape, and no corner of the volume off by more than a tenth of a voxel."""
    if first.data.shape != other.data.shape:
        shapes = " and ".join(f"{v.path} has shape {'×'.join(map(str, v.data.shape))}" for v in (first, other))
        raise StudyError(study_id, shapes, "co-register the study's files to one grid")
    corners = np.array([(*c, 1.0) for c in itertools.product(*((0, n - 1) for n in first.data.shape))])
    apart = np.abs(corners @ (first.affine - other.affine).T).max()
    voxel = np.linalg.norm(first.affine[:3, :3], axis=0).min()
    if apart > AFFINE_TOLERANCE_VOXELS * voxel:
        message = f"{first.path} and {other.path} lie {apart:.2f} mm apart by their affines"
        raise StudyError(study_id, message, "co-register the study's files to one grid")


def _display_labels(label: NiftiVolume, study_id: str) -> NDArray[np.uint8]:
    """BraTS values 0, 1, 2, 4 as ``[Z, H, W]`` uint8; 3 is enhancing tumour in newer sets and becomes 4."""
    values = np.unique(label.data)
    rounded = np.rint(values)
    wrong = values[~((np.abs(values - rounded) <= 1e-4) & np.isin(rounded, KNOWN_LABELS))]
    if wrong.size:
        message = f"{label.path} holds the label value {wrong[0]:g}"
        raise StudyError(study_id, message, "labels are 0, 1, 2 and 4 (or 3 for 4)")
    if {NEW_ENHANCING, ENHANCING} <= set(rounded.tolist()):
        message = f"{label.path} holds both 3 and 4, which both mean enhancing tumour"
        raise StudyError(study_id, message, "use one of the two values")
    labels = np.rint(label.data).astype(np.uint8)
    labels[labels == NEW_ENHANCING] = ENHANCING
    return np.ascontiguousarray(to_display(labels, label.affine))
