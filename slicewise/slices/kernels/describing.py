"""Statistics of a prepared slice in a few passes: histogram, texture, symmetry and layout of each channel, outline.

``slicewise.inference.slice_statistics`` says what they are for, and names them in the order of writing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from slicewise.slices.kernels.jit import jit_sums

CELLS = 4
BINS = 512
ROWS = 2  # every other row tells as much
EDGE = 1.0  # in deviations of the head
TINY = 1e-3


@jit_sums
def describe(image: Any, quantiles: Any, intensity: Any, shape: Any) -> None:
    """Fill ``intensity`` ``[C, …]`` and ``shape`` of one slice ``[C, size, size]``."""
    channels, size, _ = image.shape
    mask = np.zeros((size, size), np.float32)
    area = _head_mask(image, mask)
    if area == 0:
        return
    _outline(mask, area, shape)
    head = np.empty((size, size), np.float32)
    first = len(quantiles) + 2
    for channel in range(channels):
        if not _standardise(image[channel], mask, area, head):
            continue
        out = intensity[channel]
        _histogram_figures(head, mask, quantiles, out)
        _texture(head, mask, out[first : first + 4])
        out[first + 4] = _mirrored(head, mask, True)
        out[first + 5] = _mirrored(head, mask, False)
        _cells(head, out[first + 6 :])


@jit_sums
def _head_mask(image: Any, mask: Any) -> int:
    """Mark in ``mask`` the pixels that any channel has; returns how many."""
    channels, size, _ = image.shape
    area = 0
    for row in range(size):
        for channel in range(channels):
            for column in range(size):
                if image[channel, row, column] != 0:
                    mask[row, column] = 1.0
        for column in range(size):
            area += int(mask[row, column])
    return area


@jit_sums
def _standardise(plane: Any, mask: Any, area: int, head: Any) -> bool:
    """``plane`` at mean 0 and deviation 1 in the head, 0 outside; False for a missing channel."""
    size = plane.shape[0]
    total, squares = np.float32(0), np.float32(0)
    for row in range(size):
        for column in range(size):
            total += plane[row, column]
            squares += plane[row, column] * plane[row, column]
    if squares == 0:
        return False
    mean = total / area
    variance = float(squares / area - mean * mean)
    factor = np.float32(1 / np.sqrt(max(variance, 1e-12)))
    shift = np.float32(mean)
    for row in range(size):
        for column in range(size):
            head[row, column] = (plane[row, column] - shift) * factor * mask[row, column]
    return True


@jit_sums
def _outline(mask: Any, area: int, shape: Any) -> None:
    size = mask.shape[0]
    top, bottom, left, right = size, 0, size, 0
    perimeter = sideways = upside_down = rows = columns = np.float32(0)
    in_columns = np.zeros(size, np.float32)
    for row in range(size):
        in_row = np.float32(0)
        for column in range(size):
            value = mask[row, column]
            in_row += value
            in_columns[column] += value
            sideways += value * mask[row, size - 1 - column]
            upside_down += value * mask[size - 1 - row, column]
        for column in range(size - 1):
            perimeter += abs(mask[row, column] - mask[row, column + 1])
        if row + 1 < size:
            for column in range(size):
                perimeter += abs(mask[row, column] - mask[row + 1, column])
        if in_row > 0:
            top, bottom = min(top, row), row + 1
        rows += in_row * row
    for column in range(size):
        if in_columns[column] > 0:
            left, right = min(left, column), column + 1
        columns += in_columns[column] * column
    height, width = bottom - top, right - left
    shape[0] = area / (size * size)
    shape[1] = np.log(height / width)
    shape[2] = area / (height * width)
    shape[3] = sideways / area
    shape[4] = upside_down / area
    shape[5] = np.log((perimeter + 1) / np.sqrt(area))
    shape[6] = (rows / area - (size - 1) / 2) / size
    shape[7] = (columns / area - (size - 1) / 2) / size


@jit_sums
def _histogram_figures(head: Any, mask: Any, quantiles: Any, out: Any) -> None:
    """Quantiles to a bin's precision, skewness and log kurtosis of the head's values."""
    size = head.shape[0]
    low, high = np.float32(0), np.float32(0)
    third = fourth = area = np.float32(0)
    for row in range(0, size, ROWS):
        for column in range(size):
            value = head[row, column]
            low, high = min(low, value), max(high, value)  # the mean is 0, so the background changes neither
            third += value * value * value
            fourth += value * value * value * value
    counts = np.zeros(BINS + 1, np.int32)
    factor = np.float32(BINS / max(high - low, np.float32(1e-12)))
    for row in range(0, size, ROWS):
        for column in range(size):
            area += mask[row, column]
            counts[int((head[row, column] - low) * factor)] += int(mask[row, column])
    counts[BINS - 1] += counts[BINS]  # the greatest value itself
    area = max(area, np.float32(1))
    place, below = 0, 0
    for index in range(len(quantiles)):
        wanted = quantiles[index] * area
        while place < BINS - 1 and below + counts[place] < wanted:
            below += counts[place]
            place += 1
        share = (wanted - below) / counts[place] if counts[place] else 0.0
        out[index] = low + (place + share) / factor
    out[len(quantiles)] = third / area
    out[len(quantiles) + 1] = np.log(fourth / area + TINY)


@jit_sums
def _texture(head: Any, mask: Any, out: Any) -> None:
    """Log of the mean differences one and two pixels apart and of the Laplacian; the share of edges."""
    size = head.shape[0]
    near = near_n = far = far_n = bend = bend_n = edges = np.float32(0)
    for row in range(0, size - 2, ROWS):
        for column in range(size - 2):
            value, here = head[row, column], mask[row, column]
            right, below = here * mask[row, column + 1], here * mask[row + 1, column]
            step, fall = abs(head[row, column + 1] - value) * right, abs(head[row + 1, column] - value) * below
            near += step + fall
            near_n += right + below
            edges += np.float32(step > EDGE) + np.float32(fall > EDGE)
            right, below = here * mask[row, column + 2], here * mask[row + 2, column]
            far += abs(head[row, column + 2] - value) * right + abs(head[row + 2, column] - value) * below
            far_n += right + below
            middle = mask[row + 1, column + 1]
            around = (
                head[row, column + 1] + head[row + 2, column + 1] + head[row + 1, column] + head[row + 1, column + 2]
            )
            bend += abs(np.float32(4) * head[row + 1, column + 1] - around) * middle
            bend_n += middle
    one = np.float32(1)
    out[0] = np.log(near / max(near_n, one) + TINY)
    out[1] = np.log(far / max(far_n, one) + TINY)
    out[2] = np.log(bend / max(bend_n, one) + TINY)
    out[3] = edges / max(near_n, one)


@jit_sums
def _mirrored(head: Any, mask: Any, sideways: bool) -> float:
    """Correlation of the head with its mirror image, where both are; 0 where either is constant."""
    size = head.shape[0]
    count = total = squares = product = np.float32(0)
    line, inside = np.empty(size, np.float32), np.empty(size, np.float32)
    for row in range(0, size, ROWS):
        for column in range(size):
            line[column] = head[row, size - 1 - column] if sideways else head[size - 1 - row, column]
            inside[column] = mask[row, size - 1 - column] if sideways else mask[size - 1 - row, column]
        for column in range(size):
            value, other = head[row, column] * inside[column], line[column] * mask[row, column]
            count += mask[row, column] * inside[column]
            total += value + other
            squares += value * value + other * other
            product += value * other
    count = max(count, np.float32(1))
    mean = total / (2 * count)
    variance = squares / (2 * count) - mean * mean
    return float((product / count - mean * mean) / variance) if variance > 1e-6 else 0.0


@jit_sums
def _cells(head: Any, out: Any) -> None:
    """Mean of each cell of a grid over the square, 0 outside the head."""
    side = head.shape[0] // CELLS
    for index in range(CELLS * CELLS):
        top, left = (index // CELLS) * side, (index % CELLS) * side
        total = np.float32(0)
        for row in range(top, top + side):
            for column in range(left, left + side):
                total += head[row, column]
        out[index] = total / (side * side)
