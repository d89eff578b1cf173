"""Holes and specks of a binary slice, by runs of equal pixels: far fewer than the pixels themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from slicewise.slices.kernels.jit import jit


@jit
def _find(parent: Any, run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@jit
def _join(parent: Any, a: int, b: int) -> None:
    first, second = _find(parent, a), _find(parent, b)
    if first != second:
        parent[max(first, second)] = min(first, second)


@jit
def bounds(mask: Any) -> tuple[int, int, int, int]:
    """Top, bottom, left and right (both ends exclusive) of what is set; four zeros when nothing is."""
    height, width = mask.shape
    top, bottom = -1, 0
    columns = np.zeros(width, np.uint8)
    for row in range(height):
        line = mask[row]
        any_set = np.uint8(0)
        for column in range(width):
            columns[column] |= line[column]
            any_set |= line[column]
        if any_set:
            top = row if top < 0 else top
            bottom = row + 1
    if top < 0:
        return 0, 0, 0, 0
    left, right = 0, width
    while not columns[left]:
        left += 1
    while not columns[right - 1]:
        right -= 1
    return top, bottom, left, right


@jit
def _runs(mask: Any, box: tuple[int, int, int, int], starts: Any, values: Any, first_of_row: Any) -> int:
    """Split each row of ``box`` into runs of equal value; returns how many."""
    top, bottom, left, right = box
    count = 0
    for row in range(top, bottom):
        first_of_row[row - top] = count
        line = mask[row]
        starts[count], values[count] = left, line[left]
        count += 1
        for column in range(left + 1, right):
            if line[column] != line[column - 1]:
                starts[count], values[count] = column, line[column]
                count += 1
    first_of_row[bottom - top] = count
    return count


@jit
def _link(starts: Any, values: Any, first_of_row: Any, right: int, wanted: int, parent: Any) -> None:
    """Join runs that touch a run of the row above; only of value ``wanted``, or of any value for -1."""
    for row in range(1, len(first_of_row) - 1):
        above, end_above = first_of_row[row - 1], first_of_row[row]
        here, end = end_above, first_of_row[row + 1]
        while above < end_above and here < end:
            stop_above = starts[above + 1] if above + 1 < end_above else right
            stop_here = starts[here + 1] if here + 1 < end else right
            if values[above] == values[here] and (wanted < 0 or values[here] == wanted):
                _join(parent, above, here)
            if stop_above <= stop_here:
                above += 1
            if stop_here <= stop_above:
                here += 1


@jit
def _fill_holes(starts: Any, values: Any, first_of_row: Any, left: int, right: int, parent: Any) -> None:
    """Give value 1 to runs of value 0 that no path of them leads from to the box's edge."""
    n_rows = len(first_of_row) - 1
    count = first_of_row[n_rows]
    open_ = np.zeros(count, np.uint8)
    for row in range(n_rows):
        for run in range(first_of_row[row], first_of_row[row + 1]):
            stop = starts[run + 1] if run + 1 < first_of_row[row + 1] else right
            if values[run] == 0 and (row in (0, n_rows - 1) or starts[run] == left or stop == right):
                open_[_find(parent, run)] = 1
    for run in range(count):
        if values[run] == 0 and not open_[_find(parent, run)]:
            values[run] = 1


@jit
def fill_and_clean(mask: Any, small: float) -> tuple[tuple[int, int, int, int], int]:
    """Fill the holes of ``mask`` and drop components smaller than ``small`` times the largest, in place.

    Pixels are neighbours by their edges. Equal to ``scipy.ndimage.binary_fill_holes`` followed by ``label``.

    Args:
        mask: ``[H, W]`` uint8, 0 or 1.
        small: Share of the largest component's area below which a component is dropped.

    Returns:
        Top, bottom, left and right of what is left, and its area in pixels.
    """
    box = bounds(mask)
    top, bottom, left, right = box
    if bottom == 0:
        return box, 0
    n_rows = bottom - top
    most = 1 + n_rows * (right - left)
    starts, values = np.empty(most, np.int32), np.empty(most, np.uint8)
    first_of_row = np.empty(n_rows + 1, np.int64)
    count = _runs(mask, box, starts, values, first_of_row)
    parent = np.arange(count)
    _link(starts, values, first_of_row, right, 0, parent)
    _fill_holes(starts, values, first_of_row, left, right, parent)
    parent[:] = np.arange(count)
    for row in range(n_rows):  # a filled hole and the runs beside it are one
        for run in range(first_of_row[row] + 1, first_of_row[row + 1]):
            if values[run] == 1 and values[run - 1] == 1:
                _join(parent, run - 1, run)
    _link(starts, values, first_of_row, right, 1, parent)
    return _write_large(mask, box, starts, values, first_of_row, parent, small)


@jit
def _write_large(
    mask: Any, box: tuple[int, int, int, int], starts: Any, values: Any, first_of_row: Any, parent: Any, small: float
) -> tuple[tuple[int, int, int, int], int]:
    """Write the runs of the components that are large enough back into ``mask``."""
    top, bottom, _, right = box
    areas = np.zeros(len(parent), np.int64)
    for row in range(bottom - top):
        for run in range(first_of_row[row], first_of_row[row + 1]):
            stop = starts[run + 1] if run + 1 < first_of_row[row + 1] else right
            if values[run]:
                areas[_find(parent, run)] += stop - starts[run]
    least = small * areas.max()
    area = 0
    for row in range(bottom - top):
        for run in range(first_of_row[row], first_of_row[row + 1]):
            stop = starts[run + 1] if run + 1 < first_of_row[row + 1] else right
            keep = values[run] == 1 and areas[_find(parent, run)] >= least
            mask[top + row, starts[run] : stop] = np.uint8(keep)
            area += stop - starts[run] if keep else 0
    return bounds(mask), area
