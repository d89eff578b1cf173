"""A stack of pictures as a study: axial slices from inferior to superior, in the order in which they were sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.codecs.images import decode_file
from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.study_sizes import too_many
from slicewise.errors import InputError
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.repair import drop_constant, replace_non_finite
from slicewise.studies.study import Study, StudyRecord

STUDY_ID = "upload"


def read_pictures(paths: Sequence[Path], parameters: StudyParameters, max_voxels: int) -> Study:
    """Stack pictures of one size and one modality; a single npy file may hold the whole stack ``[Z, H, W]``.

    Volumes need both ``pixel_mm`` and ``slice_mm``.

    Raises:
        TooLargeError: More voxels than allowed.
        InputError: A picture cannot be read, or has another size than the first; names the file.
        StudyError: Nothing but one value in all of it.
    """
    told = parameters.modalities or (UNKNOWN_MODALITY,)
    if len(told) != 1:
        raise InputError(f"modalities: {len(told)} names for one stack", "name the one modality of all pictures")
    warnings: list[str] = []
    volume = replace_non_finite(_stack(paths, max_voxels), "the stack", STUDY_ID, warnings)
    volume = drop_constant({told[0]: volume}, STUDY_ID, warnings)[told[0]]
    rows, columns = parameters.pixel_mm or (1.0, 1.0)
    record = StudyRecord(
        study_id=STUDY_ID,
        patient_id=None,
        source=STUDY_ID,
        layout="images",
        images={"image": tuple(path.name for path in paths)},
    )
    return Study(
        record=record,
        modalities=told,
        channels=(volume,),
        labels=None,
        known_regions=(),
        spacing_mm=(parameters.slice_mm or 1.0, rows, columns),
        spacing_known=parameters.pixel_mm is not None and parameters.slice_mm is not None,
        warnings=tuple(warnings),
    )


def _stack(paths: Sequence[Path], max_voxels: int) -> NDArray[Any]:
    """``[Z, H, W]``."""
    planes: list[NDArray[Any]] = []
    voxels = 0
    for path in paths:
        picture = decode_file(path.read_bytes(), path.name)
        voxels += picture.size
        if voxels > max_voxels:
            raise too_many(path.name, voxels, max_voxels)
        if len(picture) > 1 and len(paths) > 1:
            shape = list(picture.shape)
            raise InputError(f"{path.name} has shape {shape}", "send one plane per file, or one npy file alone")
        if planes and picture.shape[1:] != planes[0].shape:
            sizes = [f"{width}×{height}" for height, width in (picture.shape[1:], planes[0].shape)]
            raise InputError(f"{path.name} is {sizes[0]}, the first is {sizes[1]}", "send pictures of one size")
        planes += list(picture)
    return np.stack(planes)
