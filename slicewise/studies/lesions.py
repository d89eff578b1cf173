"""The diseased part of a phantom: tumours with their labels, and bright things that are harmless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.studies.anatomy import Anatomy
from slicewise.studies.fields import Grid, Point, Volume, ellipsoid, smooth_noise, soft

NECROTIC, OEDEMA, ENHANCING = 1, 2, 4
CORE_SPACE: Point = (48.0, 60.0, 38.0)  # the ellipsoid, around (0, 0, 12), in which tumour centres lie


@dataclass(frozen=True)
class Tumour:
    """One tumour before it is drawn; lengths in adult-head mm.

    Attributes:
        centre: Its middle.
        radius: Of the whole tumour with its oedema.
        core_radius: Of the solid part.
        rim_mm: Thickness of the enhancing rim; 0 for a tumour that does not enhance.
        stretch: Semi-axes over the radius.
        angle: Turn in the axial plane, radians.
        lobes: Offsets of further bulges of the core, in core radii; each is smaller than the core.
    """

    centre: Point
    radius: float
    core_radius: float
    rim_mm: float
    stretch: Point
    angle: float
    lobes: tuple[Point, ...]


@dataclass(frozen=True)
class Lesions:
    """Shares of a voxel taken by each tissue, ``[X, Y, Z]`` float32, and the label, ``[X, Y, Z]`` uint8."""

    necrotic: Volume
    solid: Volume
    enhancing: Volume
    oedema: Volume
    label: NDArray[np.uint8]


def draw_tumours(rng: np.random.Generator) -> list[Tumour]:
    """One to three tumours: mostly one; about one study in five without an enhancing part."""
    n_tumours = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    enhances = rng.random() > 0.2
    tumours = []
    for number in range(n_tumours):
        radius = float(rng.uniform(13, 30) if number == 0 else rng.uniform(8, 15))
        core = radius * float(rng.uniform(0.45, 0.75) if enhances else rng.uniform(0.6, 0.85))
        rim = float(rng.uniform(3.0, 7.0)) if enhances else 0.0
        stretch = tuple(float(s) for s in rng.uniform(0.8, 1.25, 3))
        angle = float(rng.uniform(0, np.pi))
        lobes = tuple((float(a), float(b), float(c)) for a, b, c in rng.normal(0, 0.5, (int(rng.integers(0, 4)), 3)))
        shape = (stretch[0], stretch[1], stretch[2]), angle, lobes
        tumours.append(Tumour(_place(rng, radius), radius, core, rim, *shape))
    return tumours


def _place(rng: np.random.Generator, radius: float) -> Point:
    """A random centre, the deeper the larger the tumour, off the middle line."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    reach = (0.45 + 0.5 * rng.random()) * (1 - 0.008 * radius)
    x, y, z = direction * reach * np.asarray(CORE_SPACE)
    x += np.copysign(max(0.0, 14 - abs(x)), x)
    return float(x), float(y), float(z) + 12


def push_aside(grid: Grid, tumours: Sequence[Tumour], strength: float) -> list[Volume]:
    """Coordinates ``[X, Y, Z]`` bent by the tumours' mass: near a core, tissue from closer in is seen."""
    bent = [np.broadcast_to(axis, grid.shape).astype(np.float32) for axis in grid.axes]
    for tumour in tumours:
        offset = [axis - np.float32(c) for axis, c in zip(grid.axes, tumour.centre, strict=True)]
        squared = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2
        pull = np.float32(strength) * np.exp(-squared / np.float32(2 * (1.1 * tumour.radius) ** 2))
        bent = [axis - part * pull for axis, part in zip(bent, offset, strict=True)]
    return bent


def grow(rng: np.random.Generator, grid: Grid, anatomy: Anatomy, tumours: Sequence[Tumour]) -> Lesions:
    """Draw the tumours into the brain; later ones take what earlier ones left."""
    zero = np.zeros(grid.shape, dtype=np.float32)
    core, inner, rims, oedema = zero, zero, zero, zero
    coarse, fine, thick = (smooth_noise(rng, grid, mm) for mm in (18, 5, 9))
    for tumour in tumours:
        whole = ellipsoid(grid.axes, tumour.centre, _scaled(tumour, tumour.radius), tumour.angle)
        solid = _core(grid, tumour) + np.float32(tumour.core_radius) * (0.15 * coarse + 0.15 * thick + 0.10 * fine)
        rim = tumour.rim_mm * np.exp(np.float32(0.55) * thick)  # thin here, a nodule there
        core = np.maximum(core, soft(solid, 2.0))
        if tumour.rim_mm > 0:
            inner = np.maximum(inner, soft(solid - rim, 2.0))
            rims = np.maximum(rims, soft(solid, 2.0) - soft(solid - rim, 2.0))
        fingers = whole + np.float32(tumour.radius) * (0.3 * thick - 0.2 * coarse)
        oedema = np.maximum(oedema, soft(np.maximum(fingers, solid + 2), 4.0))
    patchy = np.clip(0.8 + np.float32(0.25) * fine, 0.35, 1)  # not all of a rim takes up contrast alike
    return _compose(anatomy, core, inner, rims, oedema, patchy)


def _core(grid: Grid, tumour: Tumour) -> Volume:
    """Signed distance in mm to the solid part: an ellipsoid and its lobes, positive inside."""
    solid = ellipsoid(grid.axes, tumour.centre, _scaled(tumour, tumour.core_radius), tumour.angle)
    for lobe in tumour.lobes:
        x, y, z = (c + tumour.core_radius * offset for c, offset in zip(tumour.centre, lobe, strict=True))
        size = _scaled(tumour, 0.65 * tumour.core_radius)
        solid = np.maximum(solid, ellipsoid(grid.axes, (x, y, z), size, tumour.angle))
    return solid


def _scaled(tumour: Tumour, radius: float) -> Point:
    a, b, c = tumour.stretch
    return a * radius, b * radius, c * radius


def _compose(anatomy: Anatomy, core: Volume, inner: Volume, rims: Volume, oedema: Volume, patchy: Volume) -> Lesions:
    """Shares that sum to at most 1, and the label of what takes most of a voxel.

    Oedema follows the white matter and stops at the cortex and the ventricles.
    """
    follows = np.clip(1.15 * anatomy.white + 0.35 * anatomy.grey, 0, 1)
    core = core * anatomy.brain * (1 - soft(anatomy.ventricle_mm, 2))
    enhancing = np.minimum(rims, core)
    necrotic = np.minimum(inner, core - enhancing)
    swelling = np.minimum(oedema * follows, 1 - core) * anatomy.brain
    swelling = swelling * (1 - soft(anatomy.ventricle_mm + 0.5, 2))
    label = np.zeros(core.shape, dtype=np.uint8)
    label[swelling + core > 0.5] = OEDEMA
    label[core > 0.5] = NECROTIC
    label[(core > 0.5) & (enhancing > 0.4 * core)] = ENHANCING
    taken_up = enhancing * patchy
    return Lesions(necrotic, core - taken_up - necrotic, taken_up, swelling, label)


@dataclass(frozen=True)
class Harmless:
    """What looks like disease or contrast without being tumour; shares of a voxel, ``[X, Y, Z]`` float32.

    Attributes:
        bright: White-matter hyperintensity: caps around the ventricles, foci, scars; bright on FLAIR and T2.
        cavity: Old infarcts, filled with fluid, each in a scar.
        vessel: Vessels, venous sinuses and choroid plexus, bright on T1ce.
    """

    bright: Volume
    cavity: Volume
    vessel: Volume


def harmless(rng: np.random.Generator, grid: Grid, anatomy: Anatomy) -> Harmless:
    """Draw it, in the healthy as in the ill."""
    spots = smooth_noise(rng, grid, 8)
    burden = float(min(rng.exponential(0.65), 2.2))  # mostly little; in some it is confluent
    caps = soft(anatomy.ventricle_mm + 1.5 + 3.5 * burden + 1.5 * spots, 3) * float(rng.uniform(0.6, 1))
    foci = soft((spots - np.float32(2.9 - 0.7 * burden)) * 6, 3)
    scar, cavity = _infarct(rng, grid, anatomy)
    bright = np.maximum(np.maximum(caps, foci) * anatomy.white, scar)
    return Harmless(np.minimum(bright, 1 - cavity), cavity, _vessels(rng, grid, anatomy, spots))


def _infarct(rng: np.random.Generator, grid: Grid, anatomy: Anatomy) -> tuple[Volume, Volume]:
    """An old infarct in about one brain in five: shares of its gliotic wall and of its cavity."""
    present, radius = float(rng.random()) < 0.2, float(rng.uniform(5, 13))
    direction = rng.standard_normal(3) * (1, 1, 0.6)
    x, y, z = direction / np.linalg.norm(direction) * (54, 67, 47)
    shape = 2.2 * smooth_noise(rng, grid, 6)
    if not present:
        return np.zeros(grid.shape, dtype=np.float32), np.zeros(grid.shape, dtype=np.float32)
    inside = ellipsoid(grid.axes, (float(x), float(y), float(z) + 8), (radius, radius, 0.8 * radius)) + shape
    tissue = (1 - anatomy.csf) * anatomy.brain * (1 - soft(anatomy.ventricle_mm + 1, 2))
    cavity = soft(inside - np.float32(0.35 * radius), 2.5) * tissue
    return np.asarray(soft(inside, 3) * tissue - cavity, dtype=np.float32), np.asarray(cavity, dtype=np.float32)


def _vessels(rng: np.random.Generator, grid: Grid, anatomy: Anatomy, spots: Volume) -> Volume:
    """Shares of vessels in the sulci, of the sinus along the middle of the surface, and of the choroid plexus."""
    x, y, z = grid.axes
    lines = np.abs(smooth_noise(rng, grid, 9)) + np.abs(smooth_noise(rng, grid, 11))
    vessels = soft(np.float32(rng.uniform(0.5, 1.1)) - 6 * lines, 1.0) * (0.3 + 0.7 * anatomy.csf)
    behind = soft(np.asarray(y + 0.8 * z - 30, dtype=np.float32), 20)
    sinus = soft(np.asarray(2.2 - np.abs(x), dtype=np.float32), 2) * soft(3.5 - anatomy.depth_mm, 2) * behind
    plexus = soft(anatomy.ventricle_mm - 2, 2) * soft(3 * spots - 3.5, 2)
    vessels = np.maximum(vessels, sinus * float(rng.uniform(0.3, 1))) * anatomy.brain
    return np.asarray(np.maximum(vessels, plexus), dtype=np.float32)
