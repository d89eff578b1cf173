"""Bounding boxes, connected components and holes of a mask ``[D, H, W]``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Box = tuple[slice, slice, slice]
TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)  # 26 neighbours: by faces, edges and corners
IN_PLANE = np.zeros((3, 3, 3), dtype=np.bool_)  # 8 neighbours of the same slice
IN_PLANE[1] = True
Spacing = tuple[float, float, float]
MM3_PER_ML = 1000.0


def check_spacing(spacing_mm: Spacing) -> Spacing:
    """Voxel size along the axes in mm, as plain numbers.

    Raises:
        ValueError: It is not three positive, finite numbers.
    """
    sizes = tuple(float(size) for size in spacing_mm)
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"spacing_mm must be three positive numbers, not {spacing_mm}")
    return sizes[0], sizes[1], sizes[2]


def bounding_box(mask: Mask, margin: int = 0) -> Box | None:
    """The smallest box around what is set, None for an empty mask.

    Args:
        mask: ``[D, H, W]``.
        margin: Voxels added on each side, as far as the array goes.
    """
    spans: list[slice] = []
    inner = mask
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        at = np.flatnonzero(inner.any(axis=others))
        if not len(at):
            return None
        start, stop = int(at[0]), int(at[-1]) + 1
        inner = inner[(slice(None),) * axis + (slice(start, stop),)]
        spans.append(slice(max(0, start - margin), min(mask.shape[axis], stop + margin)))
    return spans[0], spans[1], spans[2]


def label_components(mask: Mask, neighbours: Mask = TOUCHING) -> tuple[Labels, int]:
    """Number the connected components from 1; 0 is background.

    Args:
        mask: ``[D, H, W]``.
        neighbours: ``[3, 3, 3]``: which voxels around one belong to it; all 26 by default, as BraTS counts.
    """
    labels = np.zeros(mask.shape, dtype=np.int32)
    return labels, int(ndimage.label(mask, structure=neighbours, output=labels))


def fill_holes(mask: Mask) -> Mask:
    """Fill the background that is shut in on all sides, as ``scipy.ndimage.binary_fill_holes`` does.

    Background is connected by faces. A mask of one slice is filled in its plane: of what lies above and below
    nothing is known.

    Args:
        mask: ``[D, H, W]``.
    """
    box = bounding_box(mask)
    filled = mask.copy()
    if box is None:
        return filled
    # One voxel of background around the box joins all that is outside of it.
    through = 0 if mask.shape[0] == 1 else 1
    outside = np.pad(~mask[box], [(through, through), (1, 1), (1, 1)], constant_values=True)
    labels = np.zeros(outside.shape, dtype=np.int32)
    ndimage.label(outside, output=labels)
    filled[box] = labels[through : through + filled[box].shape[0], 1:-1, 1:-1] != labels[0, 0, 0]
    return filled
