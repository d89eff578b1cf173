"""One NIfTI file into memory, read to its last byte so that any damage shows."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from slicewise.errors import StudyError

GZIP_MAGIC = b"\x1f\x8b"
NIFTI2_HEADER_BYTES = 540
MAX_BYTES = 1 << 32  # a 240×240×155 study of four modalities in float64 is 0.3 GB
DAMAGE = (
    EOFError,
    zlib.error,
    OSError,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True)
class NiftiVolume:
    """A file's voxels and their place.

    Attributes:
        path: The file.
        data: ``[X, Y, Z]`` in the file's order and, where it is a number type of at most 32 bits, type.
        affine: 4×4, voxel to mm in RAS+.
    """

    path: Path
    data: NDArray[Any]
    affine: NDArray[np.float64]


def load_nifti(path: Path, study_id: str) -> NiftiVolume:
    """Read a ``.nii`` or ``.nii.gz`` file; compression is told by content, not by name.

    The whole gzip stream is read and its checksum verified, so that a file cut anywhere is refused.

    Args:
        path: The file.
        study_id: Named in errors.

    Raises:
        StudyError: The file is missing, empty, truncated, damaged, no NIfTI, not three-dimensional, or has
            no usable affine; names the file and the cure.
    """
    image = _parse(_read_bytes(path, study_id), path, study_id)
    if image.header.get_data_dtype().kind not in "iuf":
        kind = image.header.get_data_dtype()
        raise StudyError(study_id, f"{path} holds voxels of type {kind}, not plain numbers", "export it as int16")
    try:
        data = np.asanyarray(image.dataobj)
    except DAMAGE as error:
        raise _damaged(path, study_id, error) from error
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise StudyError(study_id, f"{path} has an unusable affine", "export it again with its orientation")
    return NiftiVolume(path, _native(_three_dimensional(data, path, study_id)), affine)


def _read_bytes(path: Path, study_id: str) -> bytes:
    try:
        if path.stat().st_size == 0:
            raise StudyError(study_id, f"{path} is empty (0 bytes)", "copy or download the file again")
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if not packed:
                return raw.read(MAX_BYTES + 1)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return unpacked.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise StudyError(study_id, f"{path} is missing", "copy the file back, or leave the study out") from error
    except DAMAGE as error:
        raise _damaged(path, study_id, error) from error


def _parse(content: bytes, path: Path, study_id: str) -> Any:
    """Header and lazy voxels of a NIfTI-1 or -2 file."""
    if len(content) > MAX_BYTES:
        raise StudyError(study_id, f"{path} unpacks to more than {MAX_BYTES >> 30} GB", "give one 3D volume")
    size = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    kind = nib.Nifti2Image if NIFTI2_HEADER_BYTES in size else nib.Nifti1Image
    try:
        image = kind.from_bytes(content)
        needed = int(np.prod(image.shape, dtype=object)) * image.header.get_data_dtype().itemsize
    except DAMAGE as error:
        raise _damaged(path, study_id, error) from error
    if needed > len(content):
        raise _damaged(path, study_id, f"{needed} bytes of voxels announced, {len(content)} bytes there")
    return image


def _three_dimensional(data: NDArray[Any], path: Path, study_id: str) -> NDArray[Any]:
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or 0 in data.shape:
        size = "×".join(map(str, data.shape))
        raise StudyError(study_id, f"{path} has shape {size}, not one 3D volume", "give one 3D file per modality")
    return data


def _native(data: NDArray[Any]) -> NDArray[Any]:
    """Native byte order; 64-bit numbers (what a scale factor leaves) become float32."""
    small = np.float32 if data.dtype.itemsize > 4 else data.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # an overflow becomes an infinity, which the caller reports
        return data.astype(small, copy=False)


def _damaged(path: Path, study_id: str, reason: object) -> StudyError:
    text = " ".join(str(reason).split()) or type(reason).__name__
    return StudyError(study_id, f"{path} is truncated or damaged ({text})", "copy or download the file again")
