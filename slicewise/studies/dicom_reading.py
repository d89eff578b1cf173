"""DICOM series into volumes with their place in space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import SourceError, StudyError
from slicewise.studies.dicom_geometry import stack_planes
from slicewise.studies.dicom_headers import damage, is_dicom, reason
from slicewise.studies.dicom_planes import MAX_VOXELS, Plane, planes_of
from slicewise.studies.nifti import NiftiVolume

INVERTED = "MONOCHROME1"
MIN_SLOPE, MAX_SCALE = 1e-30, 1e30


def load_series(files: Sequence[Path], study_id: str, warnings: list[str]) -> NiftiVolume:
    """Read the files of one series, in any order, as one volume.

    Args:
        files: Classic single-frame images, or one enhanced multi-frame image.
        study_id: Named in errors.
        warnings: Gets a line if the pixels had to be inverted.

    Returns:
        Real values (rescaled) as ``[X, Y, Z]`` = (column, row, slice), and an affine to RAS+.

    Raises:
        StudyError: A file is missing, damaged or packed in a way that nothing here decodes, or the files are no
            regular stack; names the file and the cure.
    """
    planes: list[Plane] = []
    pixels: list[NDArray[Any]] = []
    inverted = 0
    for path in files:
        dataset = _open(path, study_id)
        try:
            found = planes_of(dataset, str(path))
            if sum(plane.rows * plane.columns for plane in (*planes, *found)) > MAX_VOXELS:
                raise ValueError(f"with the files before it, it has more than {MAX_VOXELS >> 20} megavoxels")
            pixels += _real_values(dataset, found, path, study_id)
            inverted += dataset.get("PhotometricInterpretation") == INVERTED
        except damage() as error:
            message = f"{path} cannot be used: {reason(error)}"
            raise StudyError(study_id, message, "export the series again") from error
        planes += found
    try:
        stack = stack_planes(planes)
    except ValueError as error:
        raise StudyError(study_id, str(error), "give one whole series of parallel slices") from error
    if inverted:
        warnings.append(f"{files[0].parent}: {inverted} files of inverted grey ({INVERTED}) were turned back")
    volume = np.stack([pixels[index].T for index in stack.order], axis=-1)
    return NiftiVolume(files[0], volume, stack.affine)


def load_image(path: Path, study_id: str) -> tuple[NDArray[Any], tuple[float, float]]:
    """Read one classic image by itself, as it is stored.

    Args:
        path: A file of one frame.
        study_id: Named in errors.

    Returns:
        Real values ``[rows, columns]``, and the distance between rows and between columns in mm.

    Raises:
        StudyError: As ``load_series``, or the file holds several frames.
    """
    dataset = _open(path, study_id)
    try:
        (plane,) = planes_of(dataset, str(path))
        (pixels,) = _real_values(dataset, (plane,), path, study_id)
    except damage() as error:
        raise StudyError(study_id, f"{path} cannot be used: {reason(error)}", "export the image again") from error
    return pixels, (plane.spacing[0], plane.spacing[1])


def _open(path: Path, study_id: str) -> Any:
    import pydicom

    cure = "copy the file back, or leave the study out"
    try:
        if not path.is_file():
            raise StudyError(study_id, f"{path} is missing", cure)
        if not is_dicom(path):
            raise StudyError(study_id, f"{path} is no DICOM file", cure)
        return pydicom.dcmread(path, force=False)
    except SourceError as error:
        raise StudyError(study_id, error.message, error.cure) from error
    except damage() as error:
        message = f"{path} is truncated or damaged ({reason(error)})"
        raise StudyError(study_id, message, "export the file again") from error


def _real_values(dataset: Any, planes: Sequence[Plane], path: Path, study_id: str) -> list[NDArray[Any]]:
    """Each plane's pixels, rescaled where the file says so: ``[rows, columns]``, at most 32 bits."""
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ValueError("it is a colour picture, not a scan")
    _require_decoder(dataset, path, study_id)
    stored = np.asarray(dataset.pixel_array).reshape(len(planes), planes[0].rows, planes[0].columns)
    if dataset.get("PhotometricInterpretation") == INVERTED:
        stored = _invert(stored, int(dataset.BitsStored), bool(dataset.PixelRepresentation))
    return [_rescale(frame, plane) for frame, plane in zip(stored, planes, strict=True)]


def _require_decoder(dataset: Any, path: Path, study_id: str) -> None:
    """Refuse compressed pixels that no installed package decodes, naming the package."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
        missing = [] if decoder.is_available else list(decoder.missing_dependencies)
    except NotImplementedError:
        missing = ["no package that pydicom knows"]
    if missing:
        needed = " or ".join(dict.fromkeys(missing))[:200]
        message = f"{path} is compressed as {syntax.name}, which needs {needed}"
        raise StudyError(study_id, message, "install it, or export the series uncompressed")


def _invert(stored: NDArray[Any], bits: int, signed: bool) -> NDArray[Any]:
    """Mirror stored values within their range, so that higher is brighter."""
    if not 1 <= bits <= 16:
        raise ValueError(f"BitsStored is {bits}")
    total = -1 if signed else (1 << bits) - 1
    return (total - stored.astype(np.int32)).astype(np.int32)


def _rescale(frame: NDArray[Any], plane: Plane) -> NDArray[Any]:
    if (plane.slope, plane.intercept) == (1.0, 0.0):
        return frame if frame.dtype.itemsize <= 4 else frame.astype(np.float32)
    if not MIN_SLOPE < abs(plane.slope) < MAX_SCALE or abs(plane.intercept) > MAX_SCALE:
        raise ValueError(f"{plane.name} has the rescale slope {plane.slope:g} and intercept {plane.intercept:g}")
    return (frame * plane.slope + plane.intercept).astype(np.float32)
