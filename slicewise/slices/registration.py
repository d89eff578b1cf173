"""How well one thumbnail fits another after it was stretched, shifted and turned a little."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from slicewise.slices.fingerprint import THUMBNAIL, Plane

PADDED = 96
REACH = 8
SCALES = (0.88, 1.0, 1.12)
# Two different heads rarely come here; the same picture always does.
PROMISING = 0.4
STEPS = 12
# Pixels that no corner moves by in a step any more.
SETTLED = 0.05
MIN_OVERLAP = 0.7
# Radius of the middle that is compared, as a share of the thumbnail's side: skulls resemble each other.
CORE = 0.4
Affine = NDArray[np.float64]

_ROWS, _COLUMNS = np.mgrid[:THUMBNAIL, :THUMBNAIL].astype(np.float64)
_CORNERS = np.array([[0, 0, THUMBNAIL, THUMBNAIL], [0, THUMBNAIL, 0, THUMBNAIL], [1, 1, 1, 1]])
_MIDDLE = (THUMBNAIL - 1) / 2
_CORE = np.hypot(_ROWS - _MIDDLE, _COLUMNS - _MIDDLE) <= CORE * THUMBNAIL


def registered_correlation(first: Plane, second: Plane) -> float:
    """The correlation of two thumbnails once the first is registered to the second.

    A search over stretches of about 12 % on each axis and shifts of up to 8 pixels finds the start; Gauss–Newton
    steps refine all six affine parameters (Lucas and Kanade, IJCAI 1981).

    Args:
        first: ``[64, 64]``, already mirrored and turned by quarters like the second.
        second: ``[64, 64]``.

    Returns:
        Near 1 for the same picture, about 0.3 for two heads.
    """
    coarse, affine = search(first, second)
    if coarse < PROMISING:
        return coarse
    return refine(first, second, affine)


def search(first: Plane, second: Plane) -> tuple[float, Affine]:
    """The best correlation over stretches and shifts, and the map ``[2, 3]`` from the second's to the first's pixels.

    Turned pixels are not sought here: refining finds them.
    """
    grid = [(tall, wide) for tall in SCALES for wide in SCALES]
    spectrum = fft.rfft2(_unit(second), s=(PADDED, PADDED))
    spectra = fft.rfft2(np.stack([_unit(_warp(first, _stretch(*scale))) for scale in grid]), s=(PADDED, PADDED))
    near = np.r_[0 : REACH + 1, PADDED - REACH : PADDED]
    shifts = np.r_[0 : REACH + 1, -REACH:0]
    correlation = fft.irfft2(spectrum * spectra.conj(), s=(PADDED, PADDED))[:, near][:, :, near]
    scale, down, right = np.unravel_index(np.argmax(correlation), correlation.shape)
    affine = _stretch(*grid[scale])
    affine[:, 2] -= affine[:, :2] @ (shifts[down], shifts[right])
    return float(min(1.0, correlation[scale, down, right])), affine


def refine(first: Plane, second: Plane, affine: Affine) -> float:
    """The correlation over the overlap after Gauss–Newton steps from ``affine``; the best on the way counts."""
    gradient = np.gradient(first)
    best = 0.0
    for _ in range(STEPS):
        warped, inside = _warp(first, affine), _inside(affine)
        if inside.sum() < MIN_OVERLAP * _CORE.sum():
            break
        best = max(best, _correlation(warped[inside], second[inside]))
        down, right = (_warp(np.asarray(part), affine)[inside] for part in gradient)
        rows, columns = _ROWS[inside], _COLUMNS[inside]
        # The last two columns absorb a difference in contrast and brightness.
        system = np.stack(
            [
                down * rows,
                down * columns,
                down,
                right * rows,
                right * columns,
                right,
                -second[inside],
                np.ones_like(rows),
            ],
            axis=1,
        )
        step = np.linalg.lstsq(system.T @ system, -system.T @ warped[inside], rcond=None)[0][:6].reshape(2, 3)
        affine = affine + step
        if np.abs(step @ _CORNERS).max() < SETTLED:
            break
    return best


def _stretch(tall: float, wide: float) -> Affine:
    return np.array([[1 / tall, 0, _MIDDLE - _MIDDLE / tall], [0, 1 / wide, _MIDDLE - _MIDDLE / wide]])


def _warp(plane: NDArray[np.floating], affine: Affine) -> Plane:
    warped = ndimage.affine_transform(plane, affine[:, :2], offset=affine[:, 2], order=1)
    return np.asarray(warped, dtype=np.float32)


def _inside(affine: Affine) -> NDArray[np.bool_]:
    rows = affine[0, 0] * _ROWS + affine[0, 1] * _COLUMNS + affine[0, 2]
    columns = affine[1, 0] * _ROWS + affine[1, 1] * _COLUMNS + affine[1, 2]
    last = THUMBNAIL - 1
    return np.asarray(_CORE & (rows >= 0) & (rows <= last) & (columns >= 0) & (columns <= last))


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return min(1.0, float(np.dot(_unit(a), _unit(b))))


def _unit(values: NDArray[np.floating]) -> NDArray[np.floating]:
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return np.asarray(centred / norm if norm > 0 else centred)
