"""Which pixels of a slice are head or brain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.slices import kernels
from slicewise.slices.components import bounds, fill_and_clean

Box = tuple[int, int, int, int]
RANGE_SHARES = (0.01, 0.995)
SMALL_COMPONENT = 0.1
RECTANGLE = 0.96  # share of its bounds that a picture frame fills, and no head
FRAME_LINE = 0.85  # share of a row or column that a drawn frame marks
FRAME_DEPTH = 0.05  # how far from the edge a frame is looked for
BORDER_TOLERANCE = 0.04  # of the plane's robust range: JPEG noise in a letterbox bar


def find_foreground(planes: Sequence[NDArray[Any]], fraction: float) -> tuple[NDArray[np.uint8], Box, int]:
    """Head or brain of a slice: above a fraction of the robust range in any channel, holes filled.

    The same rule serves skull-stripped volumes (background exactly 0), heads with skull and JPEG noise around
    them. Uniform bars at the frame's edge (letterboxing, white as well as black) and lines drawn around the picture
    are cut off first. Components much smaller than the largest (letters, specks) are dropped; two temporal lobes
    are kept.

    Args:
        planes: The channels, ``[H, W]`` each.
        fraction: Pixels above this fraction of the range between the 1 % and 99.5 % quantiles are foreground.

    Returns:
        ``[H, W]`` uint8 of 0 and 1, its bounds (top, bottom, left, right) and its area in pixels. Where nothing
        stands out the whole frame is foreground.
    """
    mask, box, area = _find(planes, fraction)
    top, bottom, left, right = box
    inner = (bottom - top) * (right - left)
    # A head is round: a full rectangle is a picture on its own grey ground, set into a darker frame.
    if inner < mask.size and area > RECTANGLE * inner:
        cut = [np.ascontiguousarray(plane[top:bottom, left:right]) for plane in planes]
        mask[top:bottom, left:right], found, area = _find(cut, fraction)
        box = (top + found[0], top + found[1], left + found[2], left + found[3])
    return mask, box, area


def _find(planes: Sequence[NDArray[Any]], fraction: float) -> tuple[NDArray[np.uint8], Box, int]:
    height, width = planes[0].shape
    mask = np.zeros((height, width), dtype=np.uint8)
    # A channel with a bright ground (a phase-sensitive sequence, say) tells nothing where another has a dark one.
    marked = [kernels.mark_head(plane, RANGE_SHARES, fraction, mask) for plane in planes]
    if not any(marked):
        for plane in planes:
            _mark_between_bars(plane, fraction, mask)
    if _near_edge(bounds(mask), height, width):
        _erase_frame(mask)
        _erase_frame(mask.T)
    box, area = fill_and_clean(mask, SMALL_COMPONENT)
    return (mask, box, area) if area else (np.ones_like(mask), (0, height, 0, width), mask.size)


def _mark_between_bars(plane: NDArray[Any], fraction: float, mask: NDArray[np.uint8]) -> None:
    top, bottom, left, right = _without_bars(plane)
    inner = plane[top:bottom, left:right]
    low, high = kernels.window_range(plane, (top, bottom, left, right), RANGE_SHARES)
    mask[top:bottom, left:right] |= inner > low + fraction * (high - low)


def _without_bars(plane: NDArray[Any]) -> Box:
    """The frame without the rows and columns at its edges in which all pixels are (almost) equal."""
    low, high = kernels.window_range(plane, (0, plane.shape[0], 0, plane.shape[1]), RANGE_SHARES)
    tolerance = BORDER_TOLERANCE * (high - low)
    top, bottom, left, right = 0, plane.shape[0], 0, plane.shape[1]
    shrinking = True
    while shrinking:
        before = (top, bottom, left, right)
        inner = plane[top:bottom, left:right].astype(np.float32)
        lines = np.flatnonzero(np.ptp(inner, axis=1) > tolerance)
        columns = np.flatnonzero(np.ptp(inner, axis=0) > tolerance)
        if not len(lines) or not len(columns):
            return 0, plane.shape[0], 0, plane.shape[1]
        top, bottom = top + int(lines[0]), top + int(lines[-1]) + 1
        left, right = left + int(columns[0]), left + int(columns[-1]) + 1
        shrinking = (top, bottom, left, right) != before
    return top, bottom, left, right


def _near_edge(box: Box, height: int, width: int) -> bool:
    depth = max(height, width) * FRAME_DEPTH
    return min(box[0], box[2], height - box[1], width - box[3]) < depth


def _erase_frame(mask: NDArray[np.uint8]) -> None:
    """Clear lines along the first and last rows, which filling the holes would turn into one full frame.

    A row near the edge that is almost all marked is such a line if the row further in is not: there, tissue fills
    the picture.
    """
    depth = max(2, round(len(mask) * FRAME_DEPTH))
    if len(mask) <= 2 * depth:
        return
    for side in (mask, mask[::-1]):
        full = side[: depth + 1].mean(axis=1) > FRAME_LINE
        if full[:depth].any() and not full[depth]:
            side[: int(np.flatnonzero(full[:depth])[-1]) + 1] = 0
