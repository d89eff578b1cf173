"""On which side of the brain a tumour lies.

Volumes are in display orientation (``slicewise/studies/orientation.py``): columns run from the patient's right to the
left, so the patient's right is on the left of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from slicewise.inference.components3d import Mask, Spacing

Side = Literal["left", "right", "both", "midline"]
BAND_MM = 10.0  # what lies mostly this close to the mid-plane belongs to neither side (thalami, brain stem, callosum)
BOTH_SHARE = 0.1  # a tumour with this much of it on the smaller side is on both
TOUCH_MM = 2.0  # about the error of the estimated plane
WIDE = 0.5  # rows of the head narrower than this share of the widest say little about its middle


@dataclass(frozen=True)
class MidPlane:
    """The plane between the halves of the head: ``column = at + by_slice × slice + by_row × row``, in voxels."""

    at: float
    by_slice: float
    by_row: float

    def offset(self, mask: Mask) -> NDArray[np.float64]:
        """Signed distance of the voxels of ``mask`` ``[D, H, W]`` in columns, ``[n]``; positive is the left."""
        z, row, column = np.nonzero(mask)
        return np.asarray(column - (self.at + self.by_slice * z + self.by_row * row))


class Laterality(BaseModel):
    """Where a tumour lies.

    Attributes:
        side: The patient's ``left`` or ``right``; ``both`` where at least a tenth is on the smaller side;
            ``midline`` where at least half lies within 10 mm of the mid-plane. None for an empty mask or without
            a head.
        left_share: Share of the volume on the patient's left; None likewise.
        right_share: The rest.
        touches_midline: Whether it crosses the mid-plane or comes within 2 mm of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side | None = None
    left_share: float | None = None
    right_share: float | None = None
    touches_midline: bool | None = None


def find_mid_plane(head: Mask) -> MidPlane | None:
    """Fit the mid-plane of a head.

    Least squares through the middles of the head's rows, each weighted by its width, so that a head turned or tilted
    by some degrees keeps its own plane. Of a few rows, or of one slice, only the position is fitted.

    Args:
        head: ``[D, H, W]``, head or brain.

    Returns:
        None for an empty mask.
    """
    rows = head.any(axis=2)
    if not rows.any():
        return None
    first = head.argmax(axis=2)
    last = head.shape[2] - 1 - head[:, :, ::-1].argmax(axis=2)
    width = np.where(rows, last - first + 1, 0)
    z, row = np.nonzero(width >= WIDE * width.max())
    middle = (first + last)[z, row] / 2
    weight = width[z, row].astype(np.float64)
    terms = np.stack([np.ones(len(z)), z - z.mean(), row - row.mean()], axis=1)
    # Normal equations by the pseudo-inverse: with a single slice or row its tilt is 0.
    scaled = terms * weight[:, None]
    at, by_slice, by_row = np.linalg.pinv(terms.T @ scaled) @ (scaled.T @ middle)
    return MidPlane(float(at - by_slice * z.mean() - by_row * row.mean()), float(by_slice), float(by_row))


def find_laterality(mask: Mask, head: Mask | None, spacing_mm: Spacing) -> Laterality:
    """On which side a tumour lies.

    Args:
        mask: ``[D, H, W]`` in display orientation.
        head: ``[D, H, W]``, head or brain; without it the mid-plane is unknown.
        spacing_mm: Between slices, rows and columns.
    """
    plane = find_mid_plane(head) if head is not None else None
    if plane is None or not mask.any():
        return Laterality()
    # Columns to mm at right angles to the plane.
    steps = np.array([plane.by_slice / spacing_mm[0], plane.by_row / spacing_mm[1]]) * spacing_mm[2]
    offset = plane.offset(mask) * spacing_mm[2] / np.sqrt(1 + steps @ steps)
    # A voxel exactly on the plane is half on either side.
    left = float((1 + np.sign(offset)).mean() / 2)
    touches = bool(offset.min() <= TOUCH_MM and offset.max() >= -TOUCH_MM)
    side: Side = "left" if left > 0.5 else "right"
    if min(left, 1 - left) >= BOTH_SHARE:
        side = "both"
    if (np.abs(offset) <= BAND_MM).mean() >= 0.5:
        side = "midline"
    return Laterality(side=side, left_share=left, right_share=1 - left, touches_midline=touches)
