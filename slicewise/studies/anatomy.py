"""The healthy part of a phantom: a skull-stripped brain of grey matter, white matter and fluid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.studies.fields import Grid, Volume, ellipsoid, noise_at, smooth_noise, soft

GREY_MM = 3.2
SULCUS_SCALE_MM = 5.0  # neighbouring sulci are about 2.7 times as far apart
FOLIUM_MM = 4.2
HEMISPHERES = ((0.0, 0.0, 6.0), (66.0, 81.0, 58.0))  # centre and semi-axes
CEREBELLUM = ((0.0, 40.0, -32.0), (50.0, 32.0, 24.0))


@dataclass(frozen=True)
class Anatomy:
    """Tissue shares of every voxel, each ``[X, Y, Z]`` float32 in 0…1; csf + grey + white = 1.

    Attributes:
        brain: The brain mask, ``[X, Y, Z]`` bool.
        csf: Fluid: sulci, cisterns and ventricles.
        grey: Cortex and deep nuclei.
        white: White matter.
        ventricle_mm: Signed distance to the ventricles, positive inside.
        depth_mm: Depth below the surface, negative outside.
    """

    brain: NDArray[np.bool_]
    csf: Volume
    grey: Volume
    white: Volume
    ventricle_mm: Volume
    depth_mm: Volume


def make_anatomy(rng: np.random.Generator, grid: Grid, inner: Sequence[Volume]) -> Anatomy:
    """Grow one brain.

    Args:
        rng: Source of every random choice.
        grid: The voxel grid.
        inner: Coordinates ``[X, Y, Z]`` in mm at which the inside is looked up; the caller bends them where a
            tumour pushes the tissue away.
    """
    wobble = [axis + np.float32(2.0) * smooth_noise(rng, grid, 30) for axis in inner]
    surface, unclipped = _surface(grid.axes)
    depth = surface + 1.3 * smooth_noise(rng, grid, 28) + 0.5 * smooth_noise(rng, grid, 8)
    ventricle = _ventricles(wobble, swell=float(rng.uniform(-1.0, 3.0)))
    open_mm = float(rng.uniform(-0.2, 0.9))  # atrophy: wider sulci
    cerebrum = soft(-ellipsoid(wobble, *CEREBELLUM), 3)
    sulcus = _sulcus(rng, grid, wobble, unclipped)
    rim = np.float32(0.6 + open_mm) + 0.8 * smooth_noise(rng, grid, 14)  # fluid between brain and skull
    to_fluid = np.minimum(np.minimum(depth - rim, sulcus - np.float32(open_mm)), depth)
    edge = _edge_mm(grid, 2.2)
    csf = np.maximum(soft(-to_fluid, edge) * np.maximum(cerebrum, soft(-depth, 2)), soft(ventricle, edge))
    cortex = soft(GREY_MM - to_fluid, edge) * cerebrum
    folia = _folia(rng, grid, wobble) * (1 - cerebrum)
    grey = np.maximum(np.maximum(cortex, folia), 0.8 * soft(_nuclei(wobble), 3) * cerebrum)
    grey = np.minimum(grey, 1 - soft(ventricle + 2.0, 2.0)) * (1 - csf)
    return Anatomy(depth > 0, csf, grey, 1 - csf - grey, ventricle, np.asarray(depth, dtype=np.float32))


def _edge_mm(grid: Grid, width_mm: float) -> float:
    """Width of a tissue border: partial volume grows with the voxels."""
    return float(np.hypot(width_mm, 0.6 * np.mean(grid.step)))


def _surface(axes: Sequence[Volume]) -> tuple[Volume, Volume]:
    """Signed depth below the brain's surface in mm: hemispheres, temporal lobes, cerebellum and brain stem.

    Returns:
        The depth, and the depth as if the hemispheres had no flat base: what the sulci follow.
    """
    x, y, z = axes
    narrow = np.asarray(
        x * (1 + 0.14 * np.clip(-y / 82, 0, 1) ** 2), dtype=np.float32
    )  # the frontal lobes are narrower
    hemispheres = ellipsoid((narrow, y, z), *HEMISPHERES)
    lower = [
        ellipsoid((np.abs(x), y, z), (36, -10, -20), (26, 43, 25)),
        ellipsoid(axes, *CEREBELLUM),
        ellipsoid(axes, (0, 13, -34), (13, 14, 31)),
    ]
    below = np.maximum(np.maximum(lower[0], lower[1]), lower[2])
    base = 0.8 * (z + 27 + 0.12 * np.clip(-y, 0, 60))  # lower in front, over the eyes
    depth = np.maximum(np.minimum(hemispheres, base), below)
    return depth.astype(np.float32), np.maximum(hemispheres, below).astype(np.float32)


def _sulcus(rng: np.random.Generator, grid: Grid, axes: Sequence[Volume], depth: Volume) -> Volume:
    """Distance in mm to the nearest sulcus: walls that run inward from winding lines on the surface.

    The lines are where a noise on the surface is zero; looking the noise up along the ray from the middle makes
    walls of them. The fissure between the halves and the lateral ones are added.
    """
    x, y, z = axes
    (_, _, up), (a, b, c) = HEMISPHERES
    radius = np.sqrt(
        (x / np.float32(a)) ** 2 + (y / np.float32(b)) ** 2 + ((z - np.float32(up)) / np.float32(c)) ** 2
    )
    outward = np.clip(radius, 0.3, None) ** np.float32(-0.65)
    bend = [np.float32(3) * smooth_noise(rng, grid, 9) for _ in range(2)]  # no wall is straight
    lines = np.abs(noise_at(rng, (x * outward + bend[0], y * outward + bend[1], (z - up) * outward), SULCUS_SCALE_MM))
    reach = 15 + 4 * smooth_noise(rng, grid, 18)
    folds = lines * np.float32(0.75 * SULCUS_SCALE_MM) + np.maximum(depth - reach, 0) * np.float32(0.8)
    bridge = ellipsoid((x, y, z), (0, 2, -8), (60, 44, 36))  # corpus callosum and what lies below it
    fissure = np.abs(x) + np.float32(0.5) + np.maximum(bridge, 0)
    tilt = np.float32(0.75) * (z + 4) + np.float32(0.65) * (y + 12) + np.float32(0.5) * (np.abs(x) - 45)
    lateral = np.abs(tilt) + np.maximum(ellipsoid((np.abs(x), y, z), (50, -8, 0), (22, 26, 18)) * -1, 0)
    return np.asarray(np.minimum(np.minimum(folds, fissure), lateral + np.float32(0.3)), dtype=np.float32)


def _folia(rng: np.random.Generator, grid: Grid, axes: Sequence[Volume]) -> Volume:
    """Grey share of the cerebellum: thin leaves around a core of white matter, which the brain stem joins."""
    x, y, z = axes
    centre, semi = CEREBELLUM
    layer = ellipsoid((x, y, 1.5 * (z - centre[2]) + centre[2]), (0, 24, -34), semi) + 2.5 * smooth_noise(
        rng, grid, 9
    )
    leaves = 0.6 + 0.3 * np.cos(np.float32(2 * np.pi / FOLIUM_MM) * layer)
    core = ellipsoid((np.abs(x), y, z), (16, 34, -32), (15, 12, 8))
    stem = ellipsoid((x, y, z), (0, 13, -34), (13, 14, 31))
    return np.asarray(leaves * (1 - soft(np.maximum(core, stem), 5)), dtype=np.float32)


def _ventricles(axes: Sequence[Volume], swell: float) -> Volume:
    """Lateral ventricles (frontal horn, body, atrium), third and fourth ventricle; positive inside."""
    x, y, z = axes
    side = (np.abs(x), y, z)
    parts = [
        ellipsoid(side, (9 + 0.4 * swell, -24, 8), (4.2 + swell, 16, 9 + swell), angle=0.4),
        ellipsoid(side, (8.5 + 0.5 * swell, 2, 16), (5 + swell, 26, 5.5 + swell), angle=-0.12),
        ellipsoid(side, (19 + 0.5 * swell, 26, 7), (5.5 + swell, 16, 8 + swell), angle=-0.55),
        ellipsoid(side, (28, 8, -16), (3 + 0.6 * swell, 18, 3.5 + 0.6 * swell), angle=0.3),
        ellipsoid((x, y, z), (0, -2, -4), (1.8 + 0.4 * swell, 13, 9)),
        ellipsoid((x, y, z), (0, 24, -33), (5 + 0.4 * swell, 4.5, 8)),
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
