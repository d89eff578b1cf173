"""Between a file's voxel order and the display orientation of a study."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from nibabel import affines, orientations
from numpy.typing import NDArray

DISPLAY_AXES = ("L", "P", "S")  # towards the patient's left, back and head, as in BraTS


def to_display(volume: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Turn a volume so that slices run inferior → superior, rows anterior → posterior, columns right → left.

    Axes are flipped and swapped, never resampled: an oblique scan goes to the nearest axes.

    Args:
        volume: ``[X, Y, Z]`` in the file's order.
        affine: 4×4, voxel to mm in RAS+ as in NIfTI.

    Returns:
        ``[Z, H, W]``, a view where possible.

    Raises:
        ValueError: The affine is not finite or flattens an axis.
    """
    turned = orientations.apply_orientation(volume, _turn(affine))
    return np.asarray(turned).transpose(2, 1, 0)


def restore_orientation(mask: NDArray[Any], affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Undo ``to_display``: put a mask back into the voxel order of the file it was predicted from.

    Args:
        mask: ``[Z, H, W]`` in display orientation.
        affine: 4×4 of the file.
        shape: ``(X, Y, Z)`` of the file.

    Returns:
        ``[X, Y, Z]``.

    Raises:
        ValueError: The mask does not fit the shape, or the affine is unusable.
    """
    file_axes = _file_axes(affine)
    back = orientations.ornt_transform(orientations.axcodes2ornt(DISPLAY_AXES), file_axes)
    restored = np.asarray(orientations.apply_orientation(mask.transpose(2, 1, 0), back))
    if restored.shape != tuple(shape):
        raise ValueError(f"a mask of shape {mask.shape} [Z, H, W] does not fit a volume of shape {tuple(shape)}")
    return restored


def display_spacing(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Voxel size in mm as ``(between slices, row, column)`` of the display orientation.

    Raises:
        ValueError: The affine is unusable.
    """
    sizes = affines.voxel_sizes(affine)
    spacing = [0.0, 0.0, 0.0]
    for file_axis, display_axis in enumerate(_turn(affine)[:, 0].astype(int)):
        spacing[display_axis] = float(sizes[file_axis])
    return spacing[2], spacing[1], spacing[0]


def _turn(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = orientations.ornt_transform(_file_axes(affine), orientations.axcodes2ornt(DISPLAY_AXES))
    return np.asarray(turn, dtype=np.float64)


def _file_axes(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError("the affine is not a finite 4×4 matrix")
    axes = np.array(_axes_of(affine.astype(np.float64).tobytes()))
    if np.isnan(axes).any():
        raise ValueError("the affine flattens an axis to size 0")
    return axes


@functools.lru_cache(maxsize=64)  # the files of a study, and most studies of a set, share one affine
def _axes_of(affine: bytes) -> tuple[tuple[float, float], ...]:
    axes = orientations.io_orientation(np.frombuffer(affine).reshape(4, 4))
    return tuple((float(axis), float(flip)) for axis, flip in axes)
