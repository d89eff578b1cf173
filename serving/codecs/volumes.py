"""NIfTI and DICOM files in memory, through the readers that training uses."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from serving.codecs.budget import Budget, check_count
from serving.codecs.images import AGAIN, Array
from slicewise.errors import InputError, SourceError, StudyError
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.dicom_headers import damage, parse_header
from slicewise.studies.dicom_modality import recognise
from slicewise.studies.dicom_planes import planes_of
from slicewise.studies.dicom_reading import load_image, load_series
from slicewise.studies.gunzip import GZIP_MAGIC, GzipError, gunzip_head
from slicewise.studies.nifti import NiftiVolume, load_nifti
from slicewise.studies.nifti_header import HEAD_BYTES, HeaderError, shape_text
from slicewise.studies.nifti_header import parse_header as parse_nifti
from slicewise.studies.orientation import display_spacing, to_display

T = TypeVar("T")


@dataclass(frozen=True)
class Volume:
    """Axial slices of one modality.

    Attributes:
        slices: ``[Z, H, W]``, inferior to superior, in display orientation.
        pixel_mm: Row and column spacing.
        modality: ``unknown`` where the file does not say.
    """

    slices: Array
    pixel_mm: tuple[float, float]
    modality: str = UNKNOWN_MODALITY


def read_nifti(data: bytes, field: str, budget: Budget) -> Volume:
    """A ``.nii`` or ``.nii.gz`` file of one volume or one slice.

    Raises:
        TooLargeError: Its header announces more voxels than the budget, or too many slices.
        InputError: No NIfTI, truncated, damaged, or of four dimensions.
    """
    try:
        head = gunzip_head(data, HEAD_BYTES) if data.startswith(GZIP_MAGIC) else data[:HEAD_BYTES]
        shape = parse_nifti(head).shape
    except HeaderError as error:
        raise InputError(f"{field}: {error.message}", error.cure) from error
    except GzipError as error:
        raise InputError(f"{field} is a truncated or damaged gzip file", AGAIN) from error
    budget.take(math.prod(shape), f"{field} has {shape_text(shape)} voxels")
    return _displayed(_from_file(data, field, load_nifti), field)


def read_dicom(data: bytes, field: str, budget: Budget) -> Volume:
    """A DICOM file: one classic image, or an enhanced one with its frames.

    Raises:
        TooLargeError: Its header announces more pixels than the budget, or too many frames.
        InputError: Truncated, damaged, in colour, without its place in space, or packed in an unknown way.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        planes = planes_of(dataset, field)
        modality = _modality_of(dataset, field)
    except damage() as error:
        raise InputError(f"{field} is a DICOM file that cannot be used", "export the image again, whole") from error
    budget.take(sum(plane.rows * plane.columns for plane in planes), f"{field} has {len(planes)} frames")
    if len(planes) == 1:
        pixels, spacing = _from_file(data, field, load_image)
        return Volume(pixels[np.newaxis], spacing, modality)
    volume = _from_file(data, field, lambda path, study_id: load_series([path], study_id, []))
    return _displayed(volume, field, modality)


def _modality_of(dataset: Any, field: str) -> str:
    """What the header says; a file without the tags for that is of unknown modality."""
    try:
        found, _ = recognise(parse_header(dataset, field).acquisition)
    except damage():
        return UNKNOWN_MODALITY
    return found or UNKNOWN_MODALITY


def _from_file(data: bytes, field: str, read: Callable[[Path, str], T]) -> T:
    """Read by path, as the library does; the path stays out of what is told."""
    with tempfile.TemporaryDirectory(prefix="slicewise-upload-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        try:
            return read(path, field)
        except (StudyError, SourceError) as error:
            message = error.message.removeprefix(f"study {field}: ").replace(str(path), field)
            raise InputError(message, error.cure) from error


def _displayed(volume: NiftiVolume, field: str, modality: str = UNKNOWN_MODALITY) -> Volume:
    """Axial slices; a single image of another plane stays the picture that it is."""
    slices = to_display(volume.data, volume.affine)
    spacing = display_spacing(volume.affine)[1:]
    if volume.data.shape[2] == 1 and slices.shape[0] != 1:
        sizes = np.linalg.norm(volume.affine[:3, :2], axis=0)
        slices, spacing = volume.data.transpose(2, 1, 0), (float(sizes[1]), float(sizes[0]))
    check_count(len(slices), field)
    return Volume(slices, spacing, modality)
