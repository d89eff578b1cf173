"""How large a study says it is, asked of its headers before any voxel is read."""

from __future__ import annotations

import math
from pathlib import Path

from slicewise.errors import SourceError, TooLargeError
from slicewise.studies.dicom_headers import read_header
from slicewise.studies.gunzip import GZIP_MAGIC, GzipError, gunzip_head
from slicewise.studies.nifti_header import HEAD_BYTES, HeaderError, parse_header
from slicewise.studies.study import StudyRecord

PACKED_BYTES = 1 << 16


def require_size(record: StudyRecord, folder: Path, max_voxels: int) -> None:
    """Refuse a study that announces too many voxels.

    Args:
        record: Its files.
        folder: Where they lie.
        max_voxels: Of one modality.

    Raises:
        TooLargeError: Names the modality and the limit.
    """
    announced = _dicom_voxels if record.layout == "dicom" else _nifti_voxels
    for name, files in record.images.items():
        voxels = sum(announced(folder / file) for file in files)
        if voxels > max_voxels:
            raise too_many(name, voxels, max_voxels)


def too_many(name: str, voxels: int, max_voxels: int) -> TooLargeError:
    """The refusal of a study that is too large."""
    return TooLargeError(f"{name} has {voxels} voxels", f"send at most {max_voxels}, or scale the study down")


def _nifti_voxels(path: Path) -> int:
    """0 where the header cannot be read: the reader says why."""
    with path.open("rb") as handle:
        head = handle.read(PACKED_BYTES)
    try:
        if head.startswith(GZIP_MAGIC):
            head = gunzip_head(head, HEAD_BYTES)
        return math.prod(parse_header(head[:HEAD_BYTES]).shape)
    except (GzipError, HeaderError):
        return 0


def _dicom_voxels(path: Path) -> int:
    try:
        header = read_header(path, path.name)
    except SourceError:
        return 0
    return sum(plane.rows * plane.columns for plane in header.planes) if header else 0
