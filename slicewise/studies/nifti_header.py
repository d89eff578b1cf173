"""What a NIfTI-1 or -2 header says, checked: nibabel parses it, everything that it lets pass is judged here."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from slicewise.studies.geometry import corner_distance, spacing_text, voxel_sizes

HEAD_BYTES, NIFTI1_BYTES = 540, 348
MAX_DIMENSIONS = 7
PLAUSIBLE_MM = (0.05, 50.0)
USABLE = (1e-6, 1e6)  # in any unit
MIN_VOLUME_SHARE = 1e-3  # of a voxel to the box of its edges: below it, the axes lie in one plane
FRAMES_APART_MM = 1.0
UNIT_BITS, UNITS = 7, {1: ("metre", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}
AGAIN = "copy or download the file again"
DAMAGE = (HeaderDataError, WrapStructError, ValueError, OverflowError, KeyError, TypeError)


class HeaderError(ValueError):
    """The header is damaged, or describes what cannot be used; says how to cure it."""

    def __init__(self, message: str, cure: str = AGAIN) -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


@dataclass(frozen=True)
class Header:
    """Where the voxels are, what they mean and where they lie.

    Attributes:
        shape: 1 to 7 axes, in the file's order.
        dtype: As stored, with its byte order.
        offset: Of the first voxel, in bytes.
        scaling: Slope and intercept to real values, or None if the values are stored as they are.
        affine: 4×4, voxel to mm in RAS+ (the sform if set, else the qform, else the voxel sizes, as in nibabel).
        codes: sform and qform code as in the file.
        notes: What a reader should know, one line each.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[float, float] | None
    affine: NDArray[np.float64]
    codes: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def needed_bytes(self) -> int:
        """How long the file must be."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def parse_header(head: bytes) -> Header:
    """Read the first ``HEAD_BYTES`` of a file (fewer if it is shorter).

    Raises:
        HeaderError: No NIfTI, damaged, of a voxel type that is no plain number, or without a usable affine.
    """
    notes: list[str] = []
    try:
        header = _checked(head, notes)
        shape = _shape(header)
        dtype = header.get_data_dtype()
        if dtype.kind not in "iuf":
            raise HeaderError(f"it holds voxels of type {dtype}, not plain numbers", "export it as int16")
        slope, intercept = header.get_slope_inter()
        scaling = None if slope is None or (slope, intercept) == (1, 0) else (float(slope), float(intercept))
        offset = _offset(header, notes)
        codes = (int(header["sform_code"]), int(header["qform_code"]))
        affine = _affine(header, shape, notes)
    except HeaderError:
        raise
    except DAMAGE as error:
        raise HeaderError(f"it is truncated or damaged ({_line(error)})") from error
    return Header(shape, dtype, offset, scaling, affine, codes, tuple(notes))


def _checked(head: bytes, notes: list[str]) -> Any:
    """The header after nibabel's checks; what they repair is noted."""
    if len(head) < NIFTI1_BYTES:
        raise HeaderError(f"it is truncated or damaged ({len(head)} bytes are no NIfTI header)")
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    kind = nib.Nifti2Header if HEAD_BYTES in sizes else nib.Nifti1Header
    header = kind(head[: kind.sizeof_hdr], check=False)
    if header["magic"].item() == header.pair_magic:
        raise HeaderError("it is the header of a .hdr/.img pair", "convert the pair to one .nii.gz file")
    # nibabel says what it repairs to a logger; without the file's name it would help nobody.
    logger = logging.Logger("header", logging.WARNING)
    logger.addHandler(_Collector(notes))
    header.check_fix(logger=logger)
    return header


class _Collector(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(f"header: {_line(record.getMessage())}")


def _shape(header: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        raise HeaderError(f"it has shape {shape_text(shape)}, not one 3D volume", "give one 3D file per modality")
    return shape


def shape_text(shape: Sequence[int]) -> str:
    """E.g. 240×240×155."""
    return "×".join(map(str, shape)) or "nothing"


def _offset(header: Any, notes: list[str]) -> int:
    given, least = float(header["vox_offset"]), int(header.single_vox_offset)
    if given == 0:  # some writers leave it out; nifti_clib and ITK read on behind the header
        notes.append(f"header: no vox_offset; voxels are read from byte {least} on")
        return least
    if not math.isfinite(given) or given != int(given) or given < least:
        raise HeaderError(f"it is truncated or damaged (vox_offset is {given:g})")
    return int(given)


def _affine(header: Any, shape: Sequence[int], notes: list[str]) -> NDArray[np.float64]:
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    _require_usable(affine)
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        _compare_frames(header, affine, shape, notes)
    name, factor = UNITS.get(int(header["xyzt_units"]) & UNIT_BITS, ("mm", 1.0))
    if factor != 1:
        affine = _in_mm(affine, np.diag([factor] * 3 + [1.0]) @ affine, name, notes)
    if not _plausible(affine):
        notes.append(f"voxels of {spacing_text(affine)} mm are not plausible; check the header")
    return affine


def _in_mm(
    affine: NDArray[np.float64], scaled: NDArray[np.float64], unit: str, notes: list[str]
) -> NDArray[np.float64]:
    """Believe the header's unit unless the numbers can only be millimetres."""
    if _plausible(affine) and not _plausible(scaled):
        notes.append(f"header: the unit is {unit}, but voxels of {spacing_text(affine)} can only be mm")
        return affine
    notes.append(f"header: the unit is {unit}; turned into voxels of {spacing_text(scaled)} mm")
    return scaled


def _plausible(affine: NDArray[np.float64]) -> bool:
    sizes = voxel_sizes(affine)
    return bool(PLAUSIBLE_MM[0] <= sizes.min() and sizes.max() <= PLAUSIBLE_MM[1])


def _require_usable(affine: NDArray[np.float64]) -> None:
    cure = "export it again with its orientation"
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise HeaderError("it has an unusable affine (not finite)", cure)
    sizes = voxel_sizes(affine)
    if sizes.min() < USABLE[0] or sizes.max() > USABLE[1]:
        raise HeaderError(f"it has an unusable affine (voxels of {spacing_text(affine)})", cure)
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < MIN_VOLUME_SHARE:
        raise HeaderError("it has an unusable affine (its axes lie in one plane)", cure)


def _compare_frames(header: Any, affine: NDArray[np.float64], shape: Sequence[int], notes: list[str]) -> None:
    """Note where the two frames of one file disagree; the sform counts, as in nibabel."""
    try:
        other = np.asarray(header.get_qform(), dtype=np.float64)
    except DAMAGE as error:
        notes.append(f"header: the qform is damaged ({_line(error)}); the sform is used")
        return
    apart = corner_distance((*shape, 1, 1)[:3], affine, other) if np.isfinite(other).all() else math.inf
    if apart > FRAMES_APART_MM:
        notes.append(f"header: sform and qform lie {apart:.1f} mm apart; the sform is used")


def _line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
