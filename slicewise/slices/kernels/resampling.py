"""Resizing a square of a plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from slicewise.slices.kernels.jit import jit

F16_MIN_NORMAL = 0x38800000  # 2**-14 as float32
F16_REBIAS = 0x38000000  # (127 - 15) << 23
F16_STEPS = 1 << 24  # a subnormal float16 counts steps of 2**-24


@jit
def to_half(values: Any, target: Any) -> None:
    """float32 to float16 bits, to the nearest, ties to even (IEEE 754); for |value| ≤ 65504."""
    for row in range(values.shape[0]):
        source = values[row]
        bits_of = source.view(np.uint32)
        out = target[row]
        for column in range(source.shape[0]):
            bits = bits_of[column]
            sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
            size = bits & np.uint32(0x7FFFFFFF)
            rounded = size + np.uint32(0xFFF) + ((size >> np.uint32(13)) & np.uint32(1))
            normal = (rounded - np.uint32(F16_REBIAS)) >> np.uint32(13)
            small = np.uint32(np.rint(abs(source[column]) * np.float32(F16_STEPS)))
            out[column] = np.uint16(sign | (normal if size >= np.uint32(F16_MIN_NORMAL) else small))


@jit
def _triangle(start: int, length: int, size: int, first: int, last: int, begin: Any, weights: Any) -> None:
    """Weights of an anti-aliasing triangle filter from ``length`` pixels, ``start`` on, to ``size`` ones.

    For output ``i``, ``weights[i, k]`` belongs to input ``begin[i] + k``. Only inputs ``first ≤ p < last`` take
    part; what lies outside is 0 there, so it counts in the norm and adds nothing.
    """
    step = length / size
    support = max(step, 1.0)
    for index in range(size):
        centre = start + (index + 0.5) * step
        low, high = int(np.ceil(centre - support - 0.5)), int(np.floor(centre + support - 0.5))
        total = 0.0
        for pixel in range(low, high + 1):
            if start <= pixel < start + length:
                total += max(0.0, 1.0 - abs(pixel + 0.5 - centre) / support)
        begin[index] = max(low, first)
        weights[index] = 0.0
        for pixel in range(max(low, first), min(high + 1, last, start + length)):
            if pixel >= start:
                weights[index, pixel - begin[index]] = max(0.0, 1.0 - abs(pixel + 0.5 - centre) / support) / total


@jit
def _blend_rows(source: Any, offset: int, begin: Any, weights: Any, target: Any) -> None:
    """``target[i] = Σ_k weights[i, k] · source[begin[i] + k - offset]``, row by row."""
    for index in range(target.shape[0]):
        out = target[index]
        out[:] = 0.0
        for tap in range(weights.shape[1]):
            weight = weights[index, tap]
            if weight != 0.0:
                row = source[begin[index] + tap - offset]
                for column in range(out.shape[0]):
                    out[column] += weight * row[column]


@jit
def resample(patch: Any, box: tuple[int, int, int, int], square: tuple[int, int, int, int], target: Any) -> None:
    """Resize the square ``(top, left, height, width)`` of the frame to ``target``'s size, as float16 bits.

    Args:
        patch: float32, the content of ``box`` (top, bottom, left, right); everything else of the frame is 0.
        box: The part of the frame that ``patch`` holds.
        square: What is resized; it may reach beyond the frame.
        target: ``[size, size]`` uint16, float16 bits.
    """
    top, bottom, left, right = box
    size = target.shape[0]
    taps = int(2 * max(square[2], square[3], size) / size) + 2
    begin, weights = np.empty(size, np.int64), np.empty((size, taps), np.float32)
    _triangle(square[0], square[2], size, top, bottom, begin, weights)
    rows = np.empty((size, right - left), np.float32)
    _blend_rows(patch, top, begin, weights, rows)
    _triangle(square[1], square[3], size, left, right, begin, weights)
    columns = np.empty((size, size), np.float32)
    _blend_rows(np.ascontiguousarray(rows.T), left, begin, weights, columns)
    to_half(np.ascontiguousarray(columns.T), target)


@jit
def copy_box(patch: Any, box: tuple[int, int, int, int], square: tuple[int, int, int, int], target: Any) -> None:
    """``resample`` for a square that has ``target``'s size already."""
    top, bottom, left, right = box
    size = target.shape[0]
    target[:] = 0
    first_row, last_row = max(top, square[0]), min(bottom, square[0] + size)
    first, last = max(left, square[1]), min(right, square[1] + size)
    if last_row > first_row and last > first:
        to_half(
            patch[first_row - top : last_row - top, first - left : last - left],
            target[first_row - square[0] : last_row - square[0], first - square[1] : last - square[1]],
        )


@jit
def nearest(labels: Any, square: tuple[int, int, int, int], target: Any) -> None:
    """Resize the square ``(top, left, height, width)`` of a label plane to ``target`` by the nearest pixel.

    ``target`` is all 0 before; what the square has outside the frame stays so.
    """
    size = target.shape[0]
    columns = np.empty(size, np.int64)
    for column in range(size):
        columns[column] = square[1] + (2 * column + 1) * square[3] // (2 * size)
    for row in range(size):
        at = square[0] + (2 * row + 1) * square[2] // (2 * size)
        if at < 0 or at >= labels.shape[0]:
            continue
        line, out = labels[at], target[row]
        for column in range(size):
            if 0 <= columns[column] < labels.shape[1]:
                out[column] = line[columns[column]]


@jit
def count_by_slice(labels: Any, counts: Any) -> None:
    """How many pixels of each plane ``[n, H, W]`` are not 0."""
    for index in range(labels.shape[0]):
        total = 0
        for row in range(labels.shape[1]):
            line = labels[index, row]
            for column in range(labels.shape[2]):
                total += line[column] != 0
        counts[index] = total
