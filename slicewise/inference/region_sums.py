"""What is kept of region maps while samples pass by: sums, whatever the number of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slicewise.config import REGIONS
from slicewise.inference.calibration import Calibration
from slicewise.inference.uncertainty import Floats, Uncertainty, binary_entropy


class RegionSums:
    """Sums over the samples of ``n`` slices.

    Args:
        n: How many slices.
        regions: Which regions, as positions in ``REGIONS``.
        size: Height and width.
    """

    def __init__(self, n: int, regions: Sequence[int], size: Sequence[int]) -> None:
        self._regions = tuple(regions)
        self._mean, self._entropy = np.zeros((2, n, len(self._regions), *size), dtype=np.float32)
        self._low = np.full((n, len(self._regions)), np.inf)
        self._high = -self._low

    def add(self, group: slice, logits: Floats, weight: float, calibration: Calibration) -> None:
        """Add samples of the slices of a group.

        Args:
            group: Their positions.
            logits: ``[G, S, 3, H, W]``.
            weight: Of each sample.
            calibration: Of the network that gave them.
        """
        share = np.float32(weight)
        for at, region in enumerate(self._regions):
            raw = logits[:, :, region]
            probability = calibration.regions[REGIONS[region]].apply(raw)
            self._mean[group, at] += share * probability.sum(axis=1)
            self._entropy[group, at] += share * binary_entropy(probability).sum(axis=1)
            whole = raw.sum(axis=(2, 3), dtype=np.float64)
            self._low[group, at] = np.minimum(self._low[group, at], whole.min(axis=1))
            self._high[group, at] = np.maximum(self._high[group, at], whole.max(axis=1))

    @property
    def uncertainty(self) -> Uncertainty:
        """Measures ``[n, regions, H, W]``."""
        return Uncertainty.of_means(self._mean, self._entropy)

    @property
    def varied(self) -> tuple[bool, ...]:
        """Of each region, whether the raw logits of any slice differed between samples."""
        return tuple(bool(column.any()) for column in (self._high > self._low).T)
