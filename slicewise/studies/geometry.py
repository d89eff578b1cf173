"""Frames of volumes: how far apart, how much they share, and one volume on the grid of another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import affines
from numpy.typing import NDArray
from scipy import ndimage

Affine = NDArray[np.float64]
PROBES = 48  # per axis, to measure an overlap


@dataclass(frozen=True)
class Grid:
    """Where a file's voxels lie.

    Attributes:
        affine: 4×4, voxel to mm in RAS+.
        shape: ``(X, Y, Z)``.
        codes: The file's sform and qform code; 1 means the scanner's own coordinates, 0 that it is not set.
    """

    affine: Affine
    shape: tuple[int, int, int]
    codes: tuple[int, int] = (1, 1)


def voxel_sizes(affine: Affine) -> NDArray[np.float64]:
    """Lengths of a voxel's edges, ``[3]``, in the affine's unit and the file's order of axes."""
    return np.asarray(affines.voxel_sizes(affine), dtype=np.float64)


def spacing_text(affine: Affine) -> str:
    """E.g. 1×1×5."""
    return "×".join(f"{size:.3g}" for size in voxel_sizes(affine))


def corner_distance(shape: Sequence[int], one: Affine, other: Affine) -> float:
    """How far the corner voxels of a grid move between two affines, at most, in mm along an axis."""
    corners = np.array([(*c, 1.0) for c in itertools.product(*((0, n - 1) for n in shape))])
    return float(np.abs(corners @ (one - other).T).max())


def overlap(shape: Sequence[int], affine: Affine, other_shape: Sequence[int], other_affine: Affine) -> float:
    """Share of a volume that lies inside another one, 0…1; voxels reach half a voxel around their centres."""
    to_other = np.linalg.inv(other_affine) @ affine
    axes = [(np.arange(PROBES) + 0.5) / PROBES * n - 0.5 for n in shape]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    return float(_inside(to_other, grid, other_shape).mean())


def resample(
    data: NDArray[Any], affine: Affine, shape: Sequence[int], onto: Affine, fill: float = 0.0
) -> NDArray[np.float32]:
    """Bring a volume onto another grid by trilinear interpolation.

    Where the new grid is coarser, the volume is first blurred along the axes concerned (Gaussian with σ of half
    the excess in voxels, as in scikit-image), so that thick slices average what they cover. Outermost
    voxels reach half a voxel outwards; beyond them is ``fill``.

    Args:
        data: ``[X, Y, Z]``, finite.
        affine: Its 4×4, voxel to mm.
        shape: The new grid's.
        onto: The new grid's 4×4, voxel to mm.
        fill: Outside value.

    Returns:
        ``shape``, in Fortran order as NIfTI stores it.
    """
    back = np.linalg.inv(affine) @ onto
    step = np.linalg.norm(back[:3, :3], axis=1)
    sigma = np.maximum(step - 1, 0) / 2
    source = np.asarray(data, dtype=np.float32)
    if (sigma > 0.1).any():
        source = ndimage.gaussian_filter(source, sigma, mode="nearest", truncate=3)
    result = np.empty(tuple(shape), dtype=np.float32, order="F")
    for z in range(shape[2]):  # plane by plane: no coordinates of a whole volume in memory
        _resample_plane(source, back, z, result[:, :, z], fill)
    return result


def _resample_plane(source: NDArray[np.float32], back: Affine, z: int, out: NDArray[np.float32], fill: float) -> None:
    columns, rows = out.shape
    grid = [np.arange(columns)[:, None], np.arange(rows)[None, :], np.full((1, 1), z)]
    inside = _inside(back, grid, source.shape)
    if not inside.any():
        out[...] = fill
        return
    places = np.stack([_along(back, axis, grid) for axis in range(3)])
    out[...] = ndimage.map_coordinates(source, places, order=1, mode="nearest")
    out[~inside] = fill


def _along(affine: Affine, axis: int, grid: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """One transformed coordinate of every point of a sparse grid."""
    x, y, z = grid
    return np.asarray(affine[axis, 0] * x + affine[axis, 1] * y + affine[axis, 2] * z + affine[axis, 3])


def _inside(affine: Affine, grid: Sequence[NDArray[Any]], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Which points of a sparse grid fall into a volume's voxels; rounding must not lose an outer layer."""
    slack = 0.5 + 1e-4
    within = [
        (place >= -slack) & (place <= n - 1 + slack)
        for place, n in ((_along(affine, axis, grid), n) for axis, n in enumerate(shape))
    ]
    return np.asarray(within[0] & within[1] & within[2])
