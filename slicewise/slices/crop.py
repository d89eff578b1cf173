"""The square of a slice that the network sees, and the way back to the slice's own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.config import SliceConfig
from slicewise.errors import TooLargeError
from slicewise.slices import kernels
from slicewise.slices.foreground import Box

MAX_BOX_PIXELS = 64_000_000


@dataclass(frozen=True)
class SliceGeometry:
    """Where the network's square lies in the slice, in pixels; it may reach beyond the frame.

    Attributes:
        frame: Height and width of the slice.
        top: First row of the box.
        left: First column of the box.
        box: Height and width of the box.
    """

    frame: tuple[int, int]
    top: int
    left: int
    box: tuple[int, int]

    @property
    def square(self) -> tuple[int, int, int, int]:
        """The box as ``(top, left, height, width)``."""
        return self.top, self.left, *self.box


def crop_box(
    frame: tuple[int, int], head: Box, config: SliceConfig, pixel_mm: tuple[float, float] = (1.0, 1.0)
) -> SliceGeometry:
    """The square (in mm) around the head, or around the whole frame.

    Args:
        frame: Height and width of the slice in pixels.
        head: Top, bottom, left and right of the head.
        config: ``crop``, ``crop_margin`` and ``min_crop_fraction``.
        pixel_mm: Row and column spacing; only their ratio matters.

    Raises:
        TooLargeError: A long narrow slice whose square would not fit in memory.
    """
    height, width = frame
    top, bottom, left, right = head if config.crop == "brain" else (0, height, 0, width)
    frame_mm = max(height * pixel_mm[0], width * pixel_mm[1])
    side_mm = frame_mm
    if config.crop == "brain":
        extent_mm = max((bottom - top) * pixel_mm[0], (right - left) * pixel_mm[1])
        side_mm = max(extent_mm * config.crop_margin, frame_mm * config.min_crop_fraction)
    box = (max(1, round(side_mm / pixel_mm[0])), max(1, round(side_mm / pixel_mm[1])))
    if box[0] * box[1] > MAX_BOX_PIXELS:
        raise TooLargeError(
            f"a slice of {height}×{width} pixels needs a square crop of {box[0]}×{box[1]}",
            f"send at most {MAX_BOX_PIXELS // 10**6} million pixels in the square around the head",
        )
    return SliceGeometry(frame, (top + bottom - box[0]) // 2, (left + right - box[1]) // 2, box)


def prepare_labels(labels: NDArray[np.uint8], geometry: SliceGeometry, size: int) -> NDArray[np.uint8]:
    """The label plane ``[H, W]`` cropped and resized like its slice, by the nearest pixel."""
    plane = np.zeros((size, size), dtype=np.uint8)
    kernels.nearest(np.ascontiguousarray(labels), geometry.square, plane)
    return plane


def restore_map(plane: NDArray[np.float32], geometry: SliceGeometry) -> NDArray[np.float32]:
    """A map ``[size, size]`` of the network, put back into the slice's own pixels ``[H, W]``; 0 outside the box."""
    restored = np.zeros(geometry.frame, dtype=np.float32)
    target, source = _overlap(geometry)
    offset = (source[0].start, source[1].start)
    kernels.enlarge(np.ascontiguousarray(plane, dtype=np.float32), geometry.box, offset, restored[target])
    return restored


def pixel_area_mm2(geometry: SliceGeometry, size: int, pixel_mm: tuple[float, float]) -> float:
    """Area in mm² of one pixel of the network's square."""
    return geometry.box[0] * pixel_mm[0] * geometry.box[1] * pixel_mm[1] / size**2


def _overlap(geometry: SliceGeometry) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the frame that the box covers, in the frame's and in the box's coordinates."""
    frame_part, box_part = [], []
    for start, length, limit in zip((geometry.top, geometry.left), geometry.box, geometry.frame, strict=True):
        first, last = max(start, 0), min(start + length, limit)
        frame_part.append(slice(first, last))
        box_part.append(slice(first - start, last - start))
    return (frame_part[0], frame_part[1]), (box_part[0], box_part[1])
