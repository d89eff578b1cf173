"""One NIfTI file into memory, read to its last byte so that any damage shows, and copied nowhere in between."""

from __future__ import annotations

import dataclasses
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import StudyError
from slicewise.studies.gunzip import GZIP_MAGIC, GzipError, gunzip, gunzip_head
from slicewise.studies.nifti_header import AGAIN, HEAD_BYTES, Header, HeaderError, parse_header, shape_text

MAX_BYTES = 1 << 30  # of one file, unpacked; a BraTS volume has 18 MB, four volumes of 512×512×256 float32 fill it
MAX_ITEM_BYTES = 4
# What may follow the voxels in a gzip: without this limit a small upload would unpack for seconds.
MAX_TAIL_BYTES = 64 << 20


@dataclass(frozen=True)
class NiftiVolume:
    """A file's voxels and their place.

    Attributes:
        path: The file.
        data: ``[X, Y, Z]`` in the file's order and, where it is a number type of at most 32 bits, type.
        affine: 4×4, voxel to mm in RAS+.
        codes: The file's sform and qform code; 1 means the scanner's own coordinates, 0 that it is not set.
        notes: What a reader should know about the file, one line each.
    """

    path: Path
    data: NDArray[Any]
    affine: NDArray[np.float64]
    codes: tuple[int, int] = (1, 1)
    notes: tuple[str, ...] = ()


def load_nifti(path: Path, study_id: str) -> NiftiVolume:
    """Read a ``.nii`` or ``.nii.gz`` file of one volume; compression is told by content, not by name.

    The whole gzip stream is read and its checksum verified, so that a file cut anywhere is refused. The voxels
    are not copied: ``data`` lies in the unpacked file, unless they have to be scaled or are of 64 bits.

    Args:
        path: The file; one slice ``[X, Y]`` becomes a volume of depth 1.
        study_id: Named in errors.

    Raises:
        StudyError: The file is missing, empty, truncated, damaged, no NIfTI, larger than ``MAX_BYTES``, not
            three-dimensional, or has no usable affine; names the file and the cure.
    """
    volume = _load(path, study_id)
    data = _of_dimensions(volume.data, 3)
    if data is None:
        size = shape_text(volume.data.shape)
        raise StudyError(study_id, f"{path} has shape {size}, not one 3D volume", "give one 3D file per modality")
    return dataclasses.replace(volume, data=data)


def load_nifti_4d(path: Path, study_id: str) -> NiftiVolume:
    """Read a file of several volumes on one grid, with all checks of ``load_nifti``.

    Returns:
        ``data`` is ``[X, Y, Z, T]``; T is 1 for a plain 3D file.

    Raises:
        StudyError: As ``load_nifti``.
    """
    volume = _load(path, study_id)
    data = _of_dimensions(volume.data, 4)
    if data is None:
        size = shape_text(volume.data.shape)
        raise StudyError(study_id, f"{path} has shape {size}, not a stack of volumes", "give one 4D file per study")
    return dataclasses.replace(volume, data=data)


def _load(path: Path, study_id: str) -> NiftiVolume:
    try:
        header, content = _read(path, study_id)
    except HeaderError as error:
        raise StudyError(study_id, f"{path}: {error.message}", error.cure) from error
    except GzipError as error:
        raise StudyError(study_id, f"{path} is truncated or damaged ({error})", AGAIN) from error
    except FileNotFoundError as error:
        raise StudyError(study_id, f"{path} is missing", "copy the file back, or leave the study out") from error
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise StudyError(
            study_id, f"{path} cannot be read ({reason})", "check its permissions and the disk"
        ) from error
    notes = tuple(f"{path}: {note}" for note in header.notes)
    return NiftiVolume(path, _voxels(header, content), header.affine, header.codes, notes)


def _read(path: Path, study_id: str) -> tuple[Header, bytearray]:
    """The header, and the file's content from its first byte to its last voxel or beyond."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise StudyError(study_id, f"{path} is a folder or device, not a file", "give a .nii or .nii.gz file")
    if status.st_size == 0:
        raise StudyError(study_id, f"{path} is empty (0 bytes)", AGAIN)
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
        packed = head.startswith(GZIP_MAGIC)
        if packed:
            _require_size(status.st_size, path, study_id)
            handle.seek(0)
            stream = handle.read()
            head = gunzip_head(stream, HEAD_BYTES)
        header = parse_header(head)
        _require_size(header.needed_bytes, path, study_id)
        if packed:
            most = min(MAX_BYTES, header.needed_bytes + MAX_TAIL_BYTES)
            return header, gunzip(stream, header.needed_bytes, most)
        if header.needed_bytes > status.st_size:
            message = (
                f"{path} is truncated or damaged ({header.needed_bytes} bytes announced, {status.st_size} there)"
            )
            raise StudyError(study_id, message, AGAIN)
        content = bytearray(header.needed_bytes)
        handle.seek(0)
        there = handle.readinto(content)
    if there < header.needed_bytes:
        raise StudyError(study_id, f"{path} became shorter while it was read", AGAIN)
    return header, content


def _require_size(size: int, path: Path, study_id: str) -> None:
    if size > MAX_BYTES:
        message = f"{path} has or announces {size} bytes, more than {MAX_BYTES >> 30} GB"
        raise StudyError(study_id, message, f"{AGAIN}; if it is that large, scale it down")


def _voxels(header: Header, content: bytearray) -> NDArray[Any]:
    """Real values in native byte order and at most 32 bits; a view of the content where it can be."""
    count = int(np.prod(header.shape))
    stored = np.frombuffer(content, header.dtype, count, header.offset).reshape(header.shape, order="F")
    if header.scaling is not None:
        return _scaled(stored, *header.scaling)
    small = np.float32 if stored.dtype.itemsize > MAX_ITEM_BYTES else stored.dtype.newbyteorder("=")
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes an infinity, which the caller reports
        return np.require(stored.astype(small, copy=False), requirements="A")


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    """Slope and intercept in double precision, plane by plane so that no such copy of the volume is made."""
    result = np.empty(stored.shape, np.float32, order="F")
    planes = (-1, stored.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        for source, target in zip(
            stored.reshape(planes, order="F").T, result.reshape(planes, order="F").T, strict=True
        ):
            target[...] = source.astype(np.float64) * slope + intercept
    return result


def _of_dimensions(data: NDArray[Any], wanted: int) -> NDArray[Any] | None:
    """Drop trailing axes of length 1, or add them; None if others are too many or there is no plane at all."""
    while data.ndim > wanted and data.shape[-1] == 1:
        data = data[..., 0]
    while 2 <= data.ndim < wanted:
        data = data[..., None]
    return data if data.ndim == wanted else None
