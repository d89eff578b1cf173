"""Region logits to calibrated maps in the slice's own pixels: the same steps in serving and evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.inference.calibration import Calibration
from slicewise.slices.crop import SliceGeometry, restore_map


def trained_mask(trained_regions: Iterable[str]) -> NDArray[np.bool_]:
    """``[3]``: the regions that some training mask told."""
    told = set(trained_regions)
    return np.array([name in told for name in REGIONS])


def restore_regions(
    logits: NDArray[np.float32],
    calibration: Calibration,
    geometry: SliceGeometry,
    head: NDArray[np.bool_],
    trained: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Calibrated probability of each region in the slice's own pixels.

    Args:
        logits: ``[3, size, size]`` of WT, TC, ET.
        calibration: The bundle's.
        geometry: Where the network's square lies in the slice.
        head: ``[H, W]``; outside the head there is no tumour, and the square's border must not bleed into padding.
        trained: ``[3]``; what no mask has ever taught is noise, however sure it looks, and stays 0.

    Returns:
        ``[3, H, W]``.
    """
    maps = np.zeros((len(REGIONS), *geometry.frame), dtype=np.float32)
    for index, name in enumerate(REGIONS):
        if trained[index]:
            maps[index] = restore_map(calibration.regions[name].apply(logits[index]), geometry) * head
    return maps
