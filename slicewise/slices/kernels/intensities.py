"""Quantiles and moments of a plane, the head that they show, and intensities scaled by them."""

from __future__ import annotations

from typing import Any

import numpy as np

from slicewise.slices.kernels.jit import jit, jit_finite

BINS = 256
SAMPLES = 2048  # for what is normalised by them
FEW_SAMPLES = 768  # for the head's threshold, a twentieth of the range they give
COARSE_BINS = 30
MAX_ZOOMS = 6
FLAT = 1e-6  # a smaller deviation, as a share of the mean, counts as constant


@jit
def _stride(rows: int, columns: int, wanted: int) -> int:
    """The step in both directions that leaves about ``wanted`` pixels or more."""
    step = 1
    while (rows // (step + 1)) * (columns // (step + 1)) >= wanted:
        step += 1
    return step


@jit
def take_sample(plane: Any, mask: Any, box: tuple[int, int, int, int], wanted: int, sample: Any) -> int:
    """Copy a regular grid of the pixels under ``mask`` within ``box`` into ``sample``; returns how many.

    An empty mask (shape 0×0) takes every pixel of the grid. ``sample`` needs room for one value more.
    """
    top, bottom, left, right = box
    step = _stride(bottom - top, right - left, wanted)
    count = 0
    for row in range(top, bottom, step):
        values = plane[row, left:right]
        if mask.shape[0] == 0:
            for column in range(0, right - left, step):
                sample[count] = np.float32(values[column])
                count += 1
        else:
            inside = mask[row, left:right]
            for column in range(0, right - left, step):
                sample[count] = np.float32(values[column])
                count += inside[column]  # no branch: whether a pixel is inside cannot be foreseen
    return count


@jit
def sample_size(box: tuple[int, int, int, int], wanted: int) -> int:
    """The room that ``take_sample`` needs for ``box``."""
    top, bottom, left, right = box
    step = _stride(bottom - top, right - left, wanted)
    return ((bottom - top + step - 1) // step) * ((right - left + step - 1) // step) + 1


@jit_finite
def _range_of(sample: Any, count: int) -> tuple[float, float]:
    """The least and the greatest of ``sample[:count]``."""
    low = high = sample[0]
    for index in range(count):
        value = sample[index]
        low = value if value < low else low
        high = value if value > high else high
    return float(low), float(high)


@jit_finite
def _histogram(sample: Any, count: int, low: float, high: float) -> Any:
    """How many values lie below ``low``, in each of ``BINS`` equal bins up to ``high``, and from there on.

    Four counters per bin, added up at the end: one alone waits for itself whenever neighbours are equal.
    """
    start, factor = np.float32(low), np.float32(BINS / (high - low))
    last = np.float32(BINS + 1)
    places = np.empty(count, np.int32)
    for index in range(count):
        place = (sample[index] - start) * factor + np.float32(1.0)
        place = place if place > np.float32(0.0) else np.float32(0.0)
        places[index] = np.int32(place if place < last else last)
    tables = np.zeros((4, BINS + 2), np.int32)
    for index in range(count):
        tables[index & 3, places[index]] += 1
    return tables[0] + tables[1] + tables[2] + tables[3]


@jit
def _from_histogram(bins: Any, low: float, width: float, target: float) -> float:
    """The value below which ``target`` values lie, linear inside its bin."""
    seen, chosen = bins[0], 0
    while chosen < BINS - 1 and seen + bins[chosen + 1] <= target:
        seen += bins[chosen + 1]
        chosen += 1
    inside = (target - seen) / bins[chosen + 1] if bins[chosen + 1] > 0 else 0.0
    return low + (chosen + min(max(inside, 0.0), 1.0)) * width


@jit
def robust_range(sample: Any, count: int, shares: tuple[float, float]) -> tuple[float, float]:
    """Two quantiles of ``sample[:count]``, to a thirtieth of their distance or better.

    From one histogram; again from a finer one as long as a few spikes make its bins too coarse.
    """
    low, high = _range_of(sample, count)
    first, second = low, high
    for _ in range(MAX_ZOOMS):
        if not high > low:
            break
        bins = _histogram(sample, count, low, high)
        width = (high - low) / BINS
        first = _from_histogram(bins, low, width, shares[0] * (count - 1))
        second = _from_histogram(bins, low, width, shares[1] * (count - 1))
        if second - first > COARSE_BINS * width:
            break
        low, high = first - width, second + width
    return first, second


@jit_finite
def extremes(plane: Any, box: tuple[int, int, int, int]) -> tuple[float, float]:
    """The least and the greatest value within ``box``."""
    top, bottom, left, right = box
    low = high = plane[top, left]
    for row in range(top, bottom):
        values = plane[row, left:right]
        for column in range(right - left):
            value = values[column]
            low = value if value < low else low
            high = value if value > high else high
    return float(low), float(high)


@jit
def window_range(plane: Any, box: tuple[int, int, int, int], shares: tuple[float, float]) -> tuple[float, float]:
    """Two quantiles of a regular sample of ``box``, or twice its value where all pixels are equal.

    The first pass over all pixels also brings the plane into the cache, where the scattered reads cost little.
    """
    low, high = extremes(plane, box)
    if not high > low:
        return low, low
    sample = np.empty(sample_size(box, FEW_SAMPLES), np.float32)
    count = take_sample(plane, np.zeros((0, 0), np.uint8), box, FEW_SAMPLES, sample)
    return robust_range(sample, count, shares)


@jit
def mask_range(
    plane: Any, mask: Any, box: tuple[int, int, int, int], shares: tuple[float, float]
) -> tuple[float, float]:
    """Two quantiles of a regular sample of the pixels under ``mask``; two zeros where the sample meets none."""
    sample = np.empty(sample_size(box, SAMPLES), np.float32)
    count = take_sample(plane, mask, box, SAMPLES, sample)
    return robust_range(sample, count, shares) if count else (0.0, 0.0)


@jit
def moments(plane: Any, mask: Any, box: tuple[int, int, int, int], low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation under ``mask`` within ``box``, values clipped to ``low``…``high`` first."""
    top, bottom, left, right = box
    width = right - left
    centre = np.float32(0.5 * (low + high))
    least, most = np.float32(low), np.float32(high)
    total, square = np.zeros(width, np.float32), np.zeros(width, np.float32)
    count = 0
    for row in range(top, bottom):
        values, inside = plane[row, left:right], mask[row, left:right]
        for column in range(width):
            apart = (min(max(np.float32(values[column]), least), most) - centre) * np.float32(inside[column])
            total[column] += apart
            square[column] += apart * apart
            count += inside[column]
    sums = np.zeros(2)
    for column in range(width):
        sums[0] += total[column]
        sums[1] += square[column]
    mean = sums[0] / count
    return centre + mean, np.sqrt(max(sums[1] / count - mean * mean, 0.0))


@jit
def mark_head(plane: Any, shares: tuple[float, float], fraction: float, mask: Any) -> bool:
    """Set ``mask`` where ``plane`` is above a fraction of the range between two of its quantiles.

    Returns:
        False, and nothing is set, where a corner lies above it too: the frame's edge is no background then.
    """
    height, width = plane.shape
    low, high = window_range(plane, (0, height, 0, width), shares)
    limit = np.float32(low + fraction * (high - low))
    last = (height - 1, width - 1)
    for corner in (plane[0, 0], plane[0, last[1]], plane[last[0], 0], plane[last]):
        if np.float32(corner) > limit:
            return False
    for row in range(height):
        values, inside = plane[row], mask[row]
        for column in range(width):
            inside[column] |= np.uint8(np.float32(values[column]) > limit)
    return True


@jit
def standardise(
    plane: Any, mask: Any, box: tuple[int, int, int, int], shares: tuple[float, float], limits: Any, patch: Any
) -> bool:
    """z-scores of ``box`` into ``patch``, from the moments between two quantiles; False for a constant head."""
    low, high = mask_range(plane, mask, box, shares)
    if high - low < FLAT * max(1.0, abs(low)):
        low, high = masked_extremes(plane, mask, box)
    mean, deviation = moments(plane, mask, box, low, high)
    if deviation < FLAT * max(1.0, abs(mean)):
        return False
    scale_linear(plane, mask, box, mean, deviation, limits, patch)
    return True


@jit
def masked_extremes(plane: Any, mask: Any, box: tuple[int, int, int, int]) -> tuple[float, float]:
    """The least and the greatest value under ``mask`` within ``box``."""
    top, bottom, left, right = box
    low, high = np.inf, -np.inf
    for row in range(top, bottom):
        for column in range(left, right):
            if mask[row, column]:
                value = float(plane[row, column])
                low, high = min(low, value), max(high, value)
    return low, high


@jit
def scale_linear(
    plane: Any, mask: Any, box: tuple[int, int, int, int], centre: float, width: float, limits: Any, patch: Any
) -> None:
    """``(value - centre) / width`` clipped to ``limits`` under ``mask``, 0 elsewhere, into ``patch``."""
    top, bottom, left, right = box
    middle, factor = np.float32(centre), np.float32(1.0 / width)
    least, most = np.float32(limits[0]), np.float32(limits[1])
    for row in range(bottom - top):
        values, inside, target = plane[top + row, left:right], mask[top + row, left:right], patch[row]
        for column in range(right - left):
            score = (np.float32(values[column]) - middle) * factor
            target[column] = min(max(score, least), most) * np.float32(inside[column])


@jit
def scale_pieces(
    plane: Any, mask: Any, box: tuple[int, int, int, int], knots: Any, values_at: Any, limits: Any, patch: Any
) -> None:
    """Piecewise linear through ``(knots, values_at)``, the outer pieces continued, clipped, under ``mask``."""
    top, bottom, left, right = box
    last = len(knots) - 2
    for row in range(bottom - top):
        for column in range(right - left):
            if not mask[top + row, left + column]:
                patch[row, column] = 0.0
                continue
            value = np.float32(plane[top + row, left + column])
            piece = 0
            while piece < last and value > knots[piece + 1]:
                piece += 1
            slope = (values_at[piece + 1] - values_at[piece]) / (knots[piece + 1] - knots[piece])
            score = values_at[piece] + (value - knots[piece]) * slope
            patch[row, column] = min(max(score, limits[0]), limits[1])
