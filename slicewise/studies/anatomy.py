"""The healthy part of a phantom: a skull-stripped brain of grey matter, white matter and fluid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.studies.fields import Grid, Volume, ellipsoid, smooth_noise, soft

GREY_MM = 3.0
SULCUS_SCALE_MM = 10.0


@dataclass(frozen=True)
class Anatomy:
    """Tissue shares of every voxel, each ``[X, Y, Z]`` float32 in 0…1; csf + grey + white = 1.

    Attributes:
        brain: The brain mask, ``[X, Y, Z]`` bool.
        csf: Fluid: sulci and ventricles.
        grey: Cortex and deep nuclei.
        white: White matter.
        ventricle_mm: Signed distance to the ventricles, positive inside.
    """

    brain: NDArray[np.bool_]
    csf: Volume
    grey: Volume
    white: Volume
    ventricle_mm: Volume


def make_anatomy(rng: np.random.Generator, grid: Grid, inner: Sequence[Volume]) -> Anatomy:
    """Grow one brain.

    Args:
        rng: Source of every random choice.
        grid: The voxel grid.
        inner: Coordinates ``[X, Y, Z]`` in mm at which the inside is looked up; the caller bends them where a
            tumour pushes the tissue away.
    """
    wobble = [axis + np.float32(2.5) * smooth_noise(rng, grid, 30) for axis in inner]
    surface, unclipped = _surface(grid.axes)
    depth = surface + 2.2 * smooth_noise(rng, grid, 26) + 0.6 * smooth_noise(rng, grid, 9)
    sulcus = _sulcus(rng, grid, wobble, unclipped)
    to_fluid = np.minimum(depth, sulcus)
    ventricle = _ventricles(wobble, swell=float(rng.uniform(-1.0, 3.0)))
    open_mm = float(rng.uniform(-0.3, 1.0))  # atrophy: wider sulci
    csf = np.maximum(soft(open_mm - sulcus, 2.6) * soft(20 - unclipped, 8), soft(ventricle, 2.5))
    grey = np.maximum(soft(GREY_MM + max(open_mm, 0) - to_fluid, 2.5), 0.75 * soft(_nuclei(wobble), 3))
    grey = np.minimum(grey, 1 - soft(ventricle + 2.5, 2.0))
    grey = grey * (1 - csf)
    return Anatomy(depth > 0, csf, grey, 1 - csf - grey, ventricle)


def _surface(axes: Sequence[Volume]) -> tuple[Volume, Volume]:
    """Signed depth below the brain's surface in mm: hemispheres, temporal lobes, cerebellum and brain stem.

    Returns:
        The depth, and the depth as if the hemispheres had no flat base: what the sulci follow.
    """
    x, y, z = axes
    narrow = np.asarray(
        x * (1 + 0.16 * np.clip(-y / 82, 0, 1) ** 2), dtype=np.float32
    )  # the frontal lobes are narrower
    hemispheres = ellipsoid((narrow, y, z), (0, 0, 6), (66, 81, 58))
    lower = [
        ellipsoid((np.abs(x), y, z), (36, -10, -20), (26, 43, 25)),
        ellipsoid(axes, (0, 42, -33), (50, 31, 25)),
        ellipsoid(axes, (0, 6, -34), (16, 16, 34)),
    ]
    below = np.maximum(np.maximum(lower[0], lower[1]), lower[2])
    depth = np.maximum(np.minimum(hemispheres, 0.8 * (z + 27)), below)
    return depth.astype(np.float32), np.maximum(hemispheres, below).astype(np.float32)


def _sulcus(rng: np.random.Generator, grid: Grid, axes: Sequence[Volume], depth: Volume) -> Volume:
    """Distance in mm to the nearest sulcus: zero sheets of noise, and the fissure between the halves."""
    x, y, z = axes
    small, large = smooth_noise(rng, grid, SULCUS_SCALE_MM), smooth_noise(rng, grid, 1.5 * SULCUS_SCALE_MM)
    sheets = np.minimum(np.abs(small), 1.4 * np.abs(large))
    folds = sheets * np.float32(0.6 * SULCUS_SCALE_MM)
    reach = 13 + 3 * smooth_noise(rng, grid, 22)
    folds = folds + np.maximum(depth - reach, 0) * np.float32(0.8)
    bridge = ellipsoid((x, y, z), (0, 2, -8), (60, 44, 36))  # corpus callosum and what lies below it
    fissure = np.abs(x) + np.float32(0.9) + np.maximum(bridge, 0)
    return np.asarray(np.minimum(folds, fissure), dtype=np.float32)


def _ventricles(axes: Sequence[Volume], swell: float) -> Volume:
    """Lateral ventricles (frontal horn, body, occipital horn) and the third ventricle; positive inside."""
    x, y, z = axes
    side = (np.abs(x), y, z)
    parts = [
        ellipsoid(side, (11, -22, 8), (5 + swell, 17, 9 + swell), angle=0.35),
        ellipsoid(side, (11, 4, 15), (5.5 + swell, 24, 6.5 + swell), angle=-0.1),
        ellipsoid(side, (22, 30, 6), (5.5 + swell, 20, 8 + swell), angle=-0.45),
        ellipsoid((x, y, z), (0, -2, -4), (2.2 + 0.4 * swell, 13, 10)),
    ]
    distance = parts[0]
    for part in parts[1:]:
        distance = np.maximum(distance, part)
    return np.asarray(distance, dtype=np.float32)


def _nuclei(axes: Sequence[Volume]) -> Volume:
    """Thalamus, lentiform nucleus and head of the caudate; positive inside."""
    side = (np.abs(axes[0]), axes[1], axes[2])
    thalamus = ellipsoid(side, (11, 8, 2), (8, 13, 9), angle=-0.3)
    lentiform = ellipsoid(side, (25, -8, 0), (6.5, 16, 10), angle=-0.25)
    caudate = ellipsoid(side, (16, -24, 8), (4.5, 9, 9), angle=0.3)
    return np.asarray(np.maximum(np.maximum(thalamus, lentiform), caudate), dtype=np.float32)
