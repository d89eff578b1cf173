"""Areas of a digital surface's elements, as BraTS weighs them.

DeepMind's ``surface_distance``, which BraTS evaluates with, looks at the 2×2×2 voxels around each corner of the grid
and gives it the area of the marching-cubes surface (Lorensen and Cline, SIGGRAPH 1987) through that cell. Its table
of 256 areas follows from three rules, applied here instead of copying it:

- the surface cuts the edges between a voxel inside and one outside half-way;
- of the two sides of the surface the smaller one counts (inside, up to 4 of 8 voxels), and where a face of the cell
  can be cut in two ways its voxels are kept apart;
- each loop of cuts becomes a fan of triangles, the one with the largest area when voxels are cubes of 1 mm.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

from slicewise.inference.components3d import Spacing

Corner = tuple[int, ...]
Edge = frozenset[Corner]
CORNERS: tuple[Corner, ...] = tuple(itertools.product((0, 1), repeat=3))  # of a cell; the first is the highest bit
AROUND_FACE = ((0, 0), (0, 1), (1, 1), (1, 0))


@functools.lru_cache(maxsize=32)  # the studies of a set share one spacing
def surface_areas(spacing_mm: Spacing) -> NDArray[np.float64]:
    """The area in mm² of the surface in a cell, by the code of its 2×2×2 voxels.

    Args:
        spacing_mm: Voxel size along the three axes.

    Returns:
        ``[256]``; voxel ``(i, j, k)`` of the cell is bit ``7 - 4i - 2j - k`` of the code. 0 and 255 have none.
    """
    a, b, c = spacing_mm
    scale = np.array([b * c, a * c, a * b])
    areas = np.zeros(256)
    for code in range(1, 128):  # inside and outside exchanged, the surface is the same
        areas[code] = areas[255 - code] = np.linalg.norm(_normals(code) * scale, axis=1).sum()
    areas.setflags(write=False)
    return areas


@functools.cache
def _normals(code: int) -> NDArray[np.float64]:
    """Normals ``[triangles, 3]`` of a code's triangles for cubes of 1 mm; their lengths are areas."""
    inside = {corner for bit, corner in enumerate(CORNERS) if code >> (7 - bit) & 1}
    if len(inside) > 4:
        inside = set(CORNERS) - inside
    return np.concatenate([_widest_fan(loop) for loop in _loops(_links(inside))])


def _links(inside: set[Corner]) -> dict[Edge, list[Edge]]:
    """Which cut edges are joined by a line across a face of the cell."""
    links: dict[Edge, list[Edge]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        face = [(*place[:axis], side, *place[axis:]) for place in AROUND_FACE]
        cuts = [number for number in range(4) if (face[number] in inside) != (face[number - 1] in inside)]
        if len(cuts) == 4:  # around each corner that is inside: the edges before and after it
            pairs = [(number, (number + 1) % 4) for number in range(4) if face[number] in inside]
        else:
            pairs = [(cuts[0], cuts[1])] if cuts else []
        for first, second in pairs:
            one, other = (frozenset((face[number], face[number - 1])) for number in (first, second))
            links.setdefault(one, []).append(other)
            links.setdefault(other, []).append(one)
    return links


def _loops(links: dict[Edge, list[Edge]]) -> list[NDArray[np.float64]]:
    """The closed lines of cuts, each as its points ``[n, 3]``: every edge has two links."""
    loops = []
    left = dict(links)
    while left:
        at: Edge | None = next(iter(left))
        points = []
        while at is not None:
            points.append(np.mean(list(at), axis=0))
            at = next((edge for edge in left.pop(at) if edge in left), None)
        loops.append(np.array(points))
    return loops


def _widest_fan(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normals of the fan of triangles around the point for which they have the largest area."""
    fans = []
    for first in range(len(points)):
        spokes = np.roll(points, -first, axis=0)[1:] - points[first]
        fans.append(np.cross(spokes[:-1], spokes[1:]) / 2)
    # Rounded, so that equal fans are told apart by their order and not by the last bit.
    areas = [round(float(np.linalg.norm(fan, axis=1).sum()), 9) for fan in fans]
    return fans[int(np.argmax(areas))]
