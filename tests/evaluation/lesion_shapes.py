"""Small volumes with several lesions, made by numpy alone: for our figures and other libraries' tables of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
SHAPE = (24, 40, 48)


def ball(centre: tuple[int, int, int], radius: float, shape: tuple[int, int, int] = SHAPE) -> Mask:
    """Voxels whose centre lies within ``radius`` of ``centre``."""
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    squared = sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True))
    return np.asarray(squared <= radius**2)


def lesion_cases() -> dict[str, tuple[Mask, Mask]]:
    """Name → predicted and reference mask; all reference lesions have over 50 voxels and are far from each other."""
    nothing = np.zeros(SHAPE, dtype=np.bool_)
    large, medium, small = ball((12, 12, 12), 6), ball((12, 30, 14), 4), ball((11, 20, 38), 3)
    moved, shrunk = ball((13, 12, 14), 6), ball((12, 30, 14), 3)
    speck = ball((4, 36, 44), 2)
    return {
        "perfect": (large | small, large | small),
        "one, moved": (moved, large),
        "two found, one missed": (moved | shrunk, large | medium | small),
        "one found, a false one": (moved | speck, large),
        "found, missed and false": (shrunk | speck, medium | small),
        "all missed": (speck, large | medium),
        "nothing predicted": (nothing, large),
        "nothing there": (speck | shrunk, nothing),
    }
