"""Smooth random fields and soft shapes on a voxel grid: the bricks of the phantoms.

Everything is float32 and measured in millimetres of an adult head; a smaller field of view shrinks the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Point = tuple[float, float, float]

HEAD_EXTENT_MM = (70.0, 85.0, 67.0)
REACH_MM = 100.0  # from the middle: nothing of a head lies further out


@dataclass(frozen=True)
class Grid:
    """Voxel positions in adult-head millimetres, relative to the middle of the field of view.

    Attributes:
        shape: ``(X, Y, Z)``.
        step: Size of one voxel per axis, in adult-head millimetres.
        axes: Coordinates ``[X,1,1]``, ``[1,Y,1]``, ``[1,1,Z]``: to the left, posterior and superior.
    """

    shape: tuple[int, int, int]
    step: Point
    axes: tuple[Volume, Volume, Volume]


def make_grid(shape: tuple[int, int, int], spacing_mm: Point, size: float) -> Grid:
    """Lay a grid over a head of relative ``size`` (1 = adult), shrunk to fit the field of view."""
    room = [0.98 * n * mm / 2 / extent for n, mm, extent in zip(shape, spacing_mm, HEAD_EXTENT_MM, strict=True)]
    scale = min(size, *room)
    step = (spacing_mm[0] / scale, spacing_mm[1] / scale, spacing_mm[2] / scale)
    x, y, z = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * mm for n, mm in zip(shape, step, strict=True))
    return Grid(shape, step, (x[:, None, None], y[None, :, None], z[None, None, :]))


def smooth_noise(rng: np.random.Generator, grid: Grid, scale_mm: float) -> Volume:
    """Gaussian noise of zero mean and unit variance that varies over about ``scale_mm``.

    A coarse random lattice, interpolated with separable cubic B-splines whose weights are normalised to unit
    length, so that the variance is the same at every voxel.

    Returns:
        ``[X, Y, Z]`` float32.
    """
    bases = [_basis(rng, n, step / scale_mm) for n, step in zip(grid.shape, grid.step, strict=True)]
    lattice = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    partial = np.tensordot(bases[0], lattice, axes=(1, 0))
    partial = np.matmul(bases[1], partial)
    return np.asarray(np.matmul(partial, bases[2].T), dtype=np.float32)


def _basis(rng: np.random.Generator, n: int, step: float) -> NDArray[np.float32]:
    """Cubic B-spline weights ``[n, lattice points]`` at a random phase, rows of unit length."""
    position = np.arange(n) * step + rng.random()
    left = position.astype(int)
    t = position - left
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    basis = np.zeros((n, int(left[-1]) + 4), dtype=np.float32)
    np.put_along_axis(basis, left[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    return basis


def ellipsoid(axes: Sequence[Volume], centre: Point, semi: Point, angle: float = 0.0) -> Volume:
    """Approximate signed distance in mm to an ellipsoid, positive inside.

    Args:
        axes: Coordinates, broadcastable to ``[X, Y, Z]``.
        centre: Middle, in mm.
        semi: Semi-axes, in mm.
        angle: Turn in the axial plane, in radians.
    """
    x, y, z = (axis - np.float32(c) for axis, c in zip(axes, centre, strict=True))
    if angle:
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y = cos * x + sin * y, cos * y - sin * x
    squared = (x / np.float32(semi[0])) ** 2 + (y / np.float32(semi[1])) ** 2 + (z / np.float32(semi[2])) ** 2
    return np.asarray((1 - np.sqrt(squared)) * np.float32(min(semi)), dtype=np.float32)


def soft(distance_mm: Volume, width_mm: float) -> Volume:
    """Share of a voxel inside a surface: 0 to 1 over ``width_mm`` around distance 0 (partial volume)."""
    return np.asarray(np.clip(0.5 + distance_mm / np.float32(width_mm), 0, 1), dtype=np.float32)


def noise_at(rng: np.random.Generator, axes: Sequence[Volume], scale_mm: float) -> Volume:
    """``smooth_noise`` looked up at bent coordinates: linear interpolation of a fine regular grid.

    Args:
        rng: Source of every random choice.
        axes: Where to look, three times ``[X, Y, Z]`` in mm; beyond ``REACH_MM`` the outermost value goes on.
        scale_mm: Over what distance the noise varies.
    """
    step = scale_mm / 2.5
    n = int(np.ceil(2 * REACH_MM / step)) + 1
    axis = np.zeros((1, 1, 1), dtype=np.float32)
    noise = smooth_noise(rng, Grid((n, n, n), (step, step, step), (axis, axis, axis)), scale_mm)
    places = np.stack([(axis + np.float32(REACH_MM)) / np.float32(step) for axis in axes])
    return np.asarray(ndimage.map_coordinates(noise, places, order=1, mode="nearest"), dtype=np.float32)
