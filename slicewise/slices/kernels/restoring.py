"""Resizing a map of the network to the part of its square that lies in the frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from slicewise.slices.kernels.jit import jit


@jit
def _taps(size: int, length: int, offset: int, begin: Any, count: Any, weights: Any) -> None:
    """Pillow's bilinear filter from ``size`` pixels to ``length``, for the outputs from ``offset`` on."""
    step = size / length
    support = max(step, 1.0)
    for index in range(len(begin)):
        centre = (offset + index + 0.5) * step
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        total = 0.0
        for tap in range(last - first):
            weights[index, tap] = max(0.0, 1.0 - abs((tap + first - centre + 0.5) * (1.0 / support)))
            total += weights[index, tap]
        if total != 0.0:
            weights[index, : last - first] /= total
        begin[index], count[index] = first, last - first


@jit
def enlarge(plane: Any, box: tuple[int, int], offset: tuple[int, int], target: Any) -> None:
    """``plane`` ``[size, size]`` float32 resized to ``box``, of which ``target`` gets the window at ``offset``.

    What Pillow's ``Image.resize`` with ``BILINEAR`` gives, without copies in and out, and only where it is wanted.
    Along the rows first, sums in double, float32 in between: so does Pillow, and the bits are the same, but where a
    box is much flatter than wide and smaller than the map.
    """
    size, (height, width) = plane.shape[0], target.shape
    most = 2 * int(np.ceil(max(size / box[0], size / box[1], 1.0))) + 1
    begin, count = np.empty(width, np.int64), np.empty(width, np.int64)
    weights = np.empty((width, most), np.float64)
    _taps(size, box[1], offset[1], begin, count, weights)
    narrow = np.empty((size, width), np.float32)
    for row in range(size):
        for column in range(width):
            total = 0.0
            for tap in range(count[column]):
                total += plane[row, begin[column] + tap] * weights[column, tap]
            narrow[row, column] = total
    begin, count = np.empty(height, np.int64), np.empty(height, np.int64)
    weights = np.empty((height, most), np.float64)
    _taps(size, box[0], offset[0], begin, count, weights)
    line = np.empty(width, np.float64)
    for row in range(height):
        line[:] = 0.0
        for tap in range(count[row]):
            weight, source = weights[row, tap], narrow[begin[row] + tap]
            for column in range(width):
                line[column] += source[column] * weight
        target[row] = line
