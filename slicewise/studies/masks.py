"""A predicted mask back into the voxel order of the scan it was made from, as a NIfTI file."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from slicewise.files import atomic_path
from slicewise.studies.geometry import Grid, voxel_sizes
from slicewise.studies.nifti import NiftiVolume
from slicewise.studies.orientation import restore_orientation

NOT_SET, SCANNER = 0, 1
SHEAR_TOLERANCE = 1e-4

Frame = tuple[NDArray[np.float64], tuple[int, int, int]]


def write_mask(mask: NDArray[np.uint8] | NDArray[np.bool_], like: NiftiVolume | Grid | Frame, path: Path) -> None:
    """Write a mask so that it lies on its scan, voxel for voxel, in every viewer.

    The sform is the scan's affine; the qform says the same where it can (it cannot hold shears). The codes are the
    scan's. A scan with neither keeps neither, as programs then differ in where they put it, but not between
    two files of one kind. A scan in metres or microns gets a mask in mm, in the same place.

    Args:
        mask: ``[Z, H, W]`` in display orientation; label values, or false and true.
        like: The scan, or its grid, or its affine (voxel to mm in RAS+) and shape ``(X, Y, Z)``.
        path: ``.nii`` or ``.nii.gz``; replaced in one step.

    Raises:
        ValueError: The mask does not fit the scan, or its values do not fit uint8.
    """
    if isinstance(like, NiftiVolume):
        affine, shape, codes = like.affine, like.data.shape, like.codes
    elif isinstance(like, Grid):
        affine, shape, codes = like.affine, like.shape, like.codes
    else:
        affine, shape, codes = like[0], like[1], (SCANNER, SCANNER)
    if mask.dtype.kind not in "bu" or mask.dtype.itemsize > 1:
        raise ValueError(f"a mask of type {mask.dtype} is not written; give uint8 or bool")
    width, height, depth = shape
    stored = restore_orientation(mask.astype(np.uint8, copy=False), affine, (width, height, depth))
    content = _image(np.asfortranarray(stored), affine, codes).to_bytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content)


def _image(stored: NDArray[np.uint8], affine: NDArray[np.float64], codes: tuple[int, int]) -> nib.Nifti1Image:
    sform_code, qform_code = codes
    image = nib.Nifti1Image(stored, None)
    header = image.header
    header.set_xyzt_units("mm")
    header.set_zooms(voxel_sizes(affine))
    if sform_code != NOT_SET or qform_code != NOT_SET:
        header.set_sform(affine, sform_code or qform_code)
        header.set_qform(affine, NOT_SET if _is_sheared(affine) else qform_code)
    return image


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / voxel_sizes(affine)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE)
