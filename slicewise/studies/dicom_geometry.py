"""Where a stack of DICOM planes lies: their order, and the affine of the volume that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.studies.dicom_planes import Plane

SAME_PLACE_MM = 0.01
COSINE_TOLERANCE = 2e-3
# Positions are written with few decimals: uneven by 0.02 mm or 2 % is rounding, more is a missing slice.
GAP_TOLERANCE_MM, GAP_TOLERANCE = 0.02, 0.02
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """Planes in order along their common normal.

    Attributes:
        order: Indices of the planes given, from first to last slice.
        affine: 4×4, (column, row, slice) index to mm in RAS+.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]


def stack_planes(planes: Sequence[Plane]) -> Stack:
    """Order parallel planes by their projection on the normal and derive the volume's affine.

    The distance between slices comes from the positions alone: SliceThickness and SpacingBetweenSlices are
    often wrong, the positions practically never (D. Clunie, insight-users mailing list, 2005).

    Raises:
        ValueError: Fewer than two planes, planes of different size, spacing or direction, two in one place,
            a missing one, or a stack that leans sideways; names the plane.
    """
    if len(planes) < 2:
        raise ValueError("it has one slice only")
    first = planes[0]
    _require_alike(planes)
    along_row, along_column = np.asarray(first.orientation[:3]), np.asarray(first.orientation[3:])
    lengths = np.linalg.norm([along_row, along_column], axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(along_row @ along_column) > 0.01:
        raise ValueError(f"ImageOrientationPatient of {first.name} is not two perpendicular unit vectors")
    along_row, along_column = along_row / lengths[0], along_column / lengths[1]
    normal = np.cross(along_row, along_column)
    positions = np.asarray([plane.position for plane in planes])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    _require_even(heights[order], [planes[index].name for index in order])
    step = (positions[order[-1]] - positions[order[0]]) / (len(planes) - 1)
    _require_upright(positions[order], normal, first)
    affine = np.eye(4)
    affine[:3, 0] = along_row * first.spacing[1]
    affine[:3, 1] = along_column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[order[0]]
    return Stack(tuple(int(index) for index in order), LPS_TO_RAS @ affine)


def _require_alike(planes: Sequence[Plane]) -> None:
    first = planes[0]
    for plane in planes:
        if (plane.rows, plane.columns) != (first.rows, first.columns):
            sizes = f"{first.columns}×{first.rows} and {plane.name} is {plane.columns}×{plane.rows}"
            raise ValueError(f"{first.name} is {sizes} pixels")
        if np.abs(np.subtract(plane.orientation, first.orientation)).max() > COSINE_TOLERANCE:
            raise ValueError(f"{first.name} and {plane.name} lie in different directions")
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-3):
            raise ValueError(f"{first.name} and {plane.name} differ in PixelSpacing")


def _require_even(heights: NDArray[np.float64], names: Sequence[str]) -> None:
    """Slices one step apart, in mm along the normal."""
    gaps = np.diff(heights)
    near = int(gaps.argmin())
    if gaps[near] < SAME_PLACE_MM:
        raise ValueError(f"{names[near]} and {names[near + 1]} lie in one place")
    usual = float(np.median(gaps))
    far = int(np.abs(gaps - usual).argmax())
    if abs(gaps[far] - usual) > max(GAP_TOLERANCE_MM, GAP_TOLERANCE * usual):
        between = f"{names[far]} and {names[far + 1]} lie {gaps[far]:.2f} mm apart"
        raise ValueError(f"{between}, other slices {usual:.2f} mm: a slice is missing or too many")


def _require_upright(positions: NDArray[np.float64], normal: NDArray[np.float64], first: Plane) -> None:
    """Each slice straight above the last: a leaning stack is no rectangular volume."""
    away = positions - positions[0]
    sideways = np.linalg.norm(away - np.outer(away @ normal, normal), axis=1).max()
    if sideways > max(0.05, 0.1 * min(first.spacing)):
        raise ValueError(f"its slices shift sideways by up to {sideways:.2f} mm")
