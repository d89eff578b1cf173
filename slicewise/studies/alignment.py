"""The volumes of one study on one grid: taken as they are, resampled, or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from slicewise.errors import StudyError
from slicewise.studies.geometry import corner_distance, overlap, resample, spacing_text, voxel_sizes
from slicewise.studies.nifti import NiftiVolume

AFFINE_TOLERANCE_VOXELS = 0.1
MIN_OVERLAP = 0.5
CURE = "co-register the study's files to one grid"


def align(
    volumes: Mapping[str, NiftiVolume],
    label: NiftiVolume | None,
    study_id: str,
    warnings: list[str],
    *,
    scanner_frames: bool = False,
) -> dict[str, NiftiVolume]:
    """Bring every modality to the study's reference grid.

    The reference is the label's grid, as labels are never resampled; it must be that of an image, as a label
    of another grid may be another patient's. Without a label, it is the modality whose coarsest axis is finest.
    A modality on the same grid to a tenth of a voxel is left untouched; one of another shape is resampled
    through the affines if it covers at least half of the reference. One of the same shape whose affine disagrees
    is refused: some tool has lost its header, or it was moved without being resampled.

    Args:
        volumes: By modality, ``[X, Y, Z]``, finite.
        label: On a grid of its own or of a modality.
        study_id: Named in errors.
        warnings: Gets a line per modality that is resampled.
        scanner_frames: The affines are the scanner's own (DICOM), so that the same shape in another place means
            another slice position, and is resampled too.

    Raises:
        StudyError: Affines that disagree, or too little overlap; names the files and the number.
    """
    if label is not None and not any(same_grid(label, volume) for volume in volumes.values()):
        message = f"{label.path} ({_grid(label)}) lies on the grid of no image: {_nearest(label, volumes)}"
        raise StudyError(study_id, message, "give the label on the grid of the image on which it was drawn")
    reference = label if label is not None else min(volumes.values(), key=lambda v: voxel_sizes(v.affine).max())
    return {
        name: _onto(reference, volume, name, study_id, warnings, scanner_frames) for name, volume in volumes.items()
    }


def same_grid(one: NiftiVolume, other: NiftiVolume) -> bool:
    """Same shape, and no corner off by more than a tenth of a voxel."""
    if one.data.shape != other.data.shape:
        return False
    apart = corner_distance(one.data.shape, one.affine, other.affine)
    return bool(apart <= AFFINE_TOLERANCE_VOXELS * voxel_sizes(one.affine).min())


def _nearest(label: NiftiVolume, volumes: Mapping[str, NiftiVolume]) -> str:
    """How the label misses the image that is most like it."""
    for volume in volumes.values():
        if volume.data.shape == label.data.shape:
            apart = corner_distance(label.data.shape, label.affine, volume.affine)
            return f"{volume.path} lies {apart:.2f} mm apart by its affine"
    first = next(iter(volumes.values()))
    return f"{first.path} has {_grid(first)}"


def _onto(
    reference: NiftiVolume,
    volume: NiftiVolume,
    name: str,
    study_id: str,
    warnings: list[str],
    scanner_frames: bool,
) -> NiftiVolume:
    if same_grid(reference, volume):
        return volume
    if volume.data.shape == reference.data.shape and not scanner_frames:
        apart = corner_distance(volume.data.shape, reference.affine, volume.affine)
        message = f"{reference.path} and {volume.path} lie {apart:.2f} mm apart by their affines"
        raise StudyError(study_id, message, CURE)
    share = overlap(reference.data.shape, reference.affine, volume.data.shape, volume.affine)
    if share < MIN_OVERLAP:
        message = f"{volume.path} covers {share:.0%} of {reference.path}, less than {MIN_OVERLAP:.0%}"
        raise StudyError(study_id, message, CURE)
    warnings.append(f"{name}: resampled from {_grid(volume)} to {_grid(reference)}, of which it covers {share:.0%}")
    data = resample(volume.data, volume.affine, reference.data.shape, reference.affine)
    return dataclasses.replace(volume, data=data, affine=np.array(reference.affine))


def _grid(volume: NiftiVolume) -> str:
    return f"{'×'.join(map(str, volume.data.shape))} voxels of {spacing_text(volume.affine)} mm"
