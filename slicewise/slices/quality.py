"""What is known of a study's quality: measured while it is preprocessed, kept in the store, shown in the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

MIN_PIXELS = 100
# The difference of two Laplacians: blind to planes and edges of constant slope, so that it sees little but noise.
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)


class QualityRecord(BaseModel):
    """One study's quality, as measured while it was preprocessed.

    Attributes:
        frame: ``(slices, rows, columns)`` of the study in the plane that was cut.
        coverage: Share of the study's voxels that are head or brain.
        snr: Per modality an estimate of the signal-to-noise ratio: the mean of the head over the noise of its
            middle slice, estimated from second differences (Immerkær, Comput. Vis. Image Underst. 1996); None
            where the slice is too uniform to tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frame: tuple[int, int, int]
    coverage: float
    snr: dict[str, float | None]


def estimate_snr(plane: NDArray[Any], head: NDArray[np.bool_]) -> float | None:
    """Mean of the head over its noise.

    Args:
        plane: ``[H, W]`` intensities.
        head: ``[H, W]`` bool.

    Returns:
        The ratio, or None where the head is too small or too uniform. Fine texture counts as noise, so it is
        a lower bound, good for comparing studies and not for more.
    """
    inner = ndimage.binary_erosion(head, np.ones((3, 3)))
    count = int(inner.sum())
    if count < MIN_PIXELS:
        return None
    values = plane.astype(np.float32)
    spread = float(np.abs(ndimage.convolve(values, NOISE_KERNEL)[inner]).sum())
    noise = np.sqrt(np.pi / 2) * spread / (6 * count)
    return round(float(values[inner].mean() / noise), 2) if noise > 0 else None
