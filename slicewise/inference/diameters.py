"""Two diameters of a tumour in mm, as RANO measures them on axial slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from slicewise.inference.components3d import IN_PLANE, Mask, Spacing, bounding_box, label_components

Points = NDArray[np.float64]
SAME_MM = 1e-6  # lengths this close are equal


@dataclass(frozen=True)
class Diameters:
    """The bidimensional measurement.

    Attributes:
        largest_mm: The largest distance between two points of one connected piece of one slice.
        perpendicular_mm: The longest chord at right angles to it across the same piece.
        slice: Index of that slice.
    """

    largest_mm: float
    perpendicular_mm: float
    slice: int


def measure_diameters(mask: Mask, spacing_mm: Spacing) -> Diameters | None:
    """The largest in-plane diameter over all slices, and the largest one perpendicular to it on the same slice.

    After Wen et al., J. Clin. Oncol. 2010 (RANO) and 2023 (RANO 2.0), automated: in each axial slice, pieces of the
    mask connected by edges or corners are outlined by their convex hull, so both lines may cross a notch. Pixels
    have their size: a rectangle's diagonal is exact, and what is round comes out at most one pixel diagonal longer.

    Args:
        mask: ``[D, H, W]``, axial slices.
        spacing_mm: Between slices, rows and columns.

    Returns:
        None for an empty mask.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    labels, _ = label_components(mask[box], IN_PLANE)
    pixel = np.array(spacing_mm[1:])
    pieces = [place for place in ndimage.find_objects(labels) if place]
    reach = [float(np.hypot(*(pixel * [span.stop - span.start for span in place[1:]]))) for place in pieces]
    best: Diameters | None = None
    for index in np.argsort(reach)[::-1]:
        # No piece is longer than its box's diagonal: most need not be looked at.
        if best and reach[index] < best.largest_mm - SAME_MM:
            break
        place = pieces[index]
        largest, perpendicular = plane_diameters(labels[place][0] == index + 1, (pixel[0], pixel[1]))
        found = Diameters(largest, perpendicular, box[0].start + place[0].start)
        best = max(best or found, found, key=_rank)
    return best


def _rank(found: Diameters) -> tuple[float, float, int]:
    """Of equally long diameters the one with the longer chord counts, then the lowest slice."""
    return round(found.largest_mm, 6), round(found.perpendicular_mm, 6), -found.slice


def plane_diameters(piece: Mask, pixel_mm: tuple[float, float]) -> tuple[float, float]:
    """The largest diameter of a piece ``[H, W]`` of one slice, and the longest chord perpendicular to it.

    The two points farthest apart are corners of the convex hull (Shamos, 1978), which has few; a chord of a convex
    outline is longest where one of its ends is a corner.
    """
    hull = _outline(piece, pixel_mm)
    apart = hull[:, None] - hull[None]
    distances = np.linalg.norm(apart, axis=-1)
    largest = float(distances.max())
    chords = []
    for one, other in np.argwhere(np.triu(distances) > largest - SAME_MM):
        along = apart[one, other] / largest
        chords.append(_longest_chord(hull, along, np.array([-along[1], along[0]])))
    return largest, max(chords)


def _outline(piece: Mask, pixel_mm: tuple[float, float]) -> Points:
    """The convex hull ``[n, 2]`` of the pixels' corners, in order."""
    rows = np.flatnonzero(piece.any(axis=1))
    left = piece[rows].argmax(axis=1)
    right = piece.shape[1] - piece[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([rows, rows]), np.concatenate([left, right])], axis=1)
    corners = np.concatenate([ends, ends + np.array([1, 0])]) * np.asarray(pixel_mm)
    return np.asarray(corners[ConvexHull(corners).vertices])


def _longest_chord(hull: Points, along: Points, across: Points) -> float:
    """The longest chord of a convex outline in the direction ``across``.

    Args:
        hull: ``[n, 2]`` corners in order.
        along: Unit vector at right angles to the chord.
        across: Unit vector of the chord.
    """
    position, height = hull @ along, hull @ across
    start, stop = position[:, None], np.roll(position, -1)[:, None]
    low, high = height[:, None], np.roll(height, -1)[:, None]
    step = stop - start
    flat = np.abs(step) < SAME_MM  # along the chord: its ends belong to the sides before and after, too
    # Where a line across each corner cuts each side of the outline, as a share of the side.
    share = (position[None] - start) / np.where(flat, 1.0, step)
    cut = (share > -SAME_MM) & (share < 1 + SAME_MM) & ~flat
    crossing = low + share * (high - low)
    top = np.where(cut, crossing, -np.inf).max(axis=0)
    bottom = np.where(cut, crossing, np.inf).min(axis=0)
    return float((top - bottom).max())
