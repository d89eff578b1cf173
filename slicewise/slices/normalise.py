"""From raw intensities to the network's: four strategies, chosen by configuration, inside the head only."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slicewise.config import SliceConfig
from slicewise.slices import kernels
from slicewise.slices.foreground import Box

NYUL_SHARES = np.array([0.01, *np.arange(0.1, 0.95, 0.1), 0.99])
UNIT = (0.0, 1.0)
Mask = NDArray[np.uint8]
Patch = NDArray[np.float32]


class Normaliser(Protocol):
    """Fills ``patch`` with the normalised content of ``box``, 0 outside ``mask``; False for a constant head."""

    def __call__(self, plane: NDArray[Any], mask: Mask, box: Box, config: SliceConfig, patch: Patch) -> bool:
        """Normalise one plane ``[H, W]``."""


def _sample(plane: NDArray[Any], mask: Mask, box: Box) -> Patch:
    """A regular sample of the head's pixels: at least 2,000 where there are so many, else all."""
    sample = np.empty(kernels.sample_size(box, kernels.SAMPLES), dtype=np.float32)
    count = kernels.take_sample(plane, mask, box, kernels.SAMPLES, sample)
    if count:
        return sample[:count]
    top, bottom, left, right = box
    rest: Patch = plane[top:bottom, left:right][mask[top:bottom, left:right] != 0].astype(np.float32)
    return rest


def zscore(plane: NDArray[Any], mask: Mask, box: Box, config: SliceConfig, patch: Patch) -> bool:
    """Mean 0 and deviation 1 in the head, outliers clipped before they are taken."""
    limits = (-config.clip, config.clip)
    return bool(kernels.standardise(plane, mask, box, config.outliers, limits, patch))


def _to_unit(plane: NDArray[Any], mask: Mask, box: Box, limits: tuple[float, float], patch: Patch) -> bool:
    low, high = limits
    if high - low < kernels.FLAT * max(1.0, abs(low)):
        return False
    kernels.scale_linear(plane, mask, box, low, high - low, UNIT, patch)
    return True


def minmax(plane: NDArray[Any], mask: Mask, box: Box, config: SliceConfig, patch: Patch) -> bool:
    """The head's least value to 0, its greatest to 1."""
    return _to_unit(plane, mask, box, kernels.masked_extremes(plane, mask, box), patch)


def percentile(plane: NDArray[Any], mask: Mask, box: Box, config: SliceConfig, patch: Patch) -> bool:
    """Two quantiles of the head to 0 and 1, clipped."""
    low, high = kernels.mask_range(plane, mask, box, config.percentiles)
    if high - low < kernels.FLAT * max(1.0, abs(low)):  # almost all pixels are equal
        low, high = kernels.masked_extremes(plane, mask, box)
    return _to_unit(plane, mask, box, (low, high), patch)


def nyul(plane: NDArray[Any], mask: Mask, box: Box, config: SliceConfig, patch: Patch) -> bool:
    """The head's deciles to the standard scale, linear between them (Nyúl and Udupa 1999)."""
    knots = np.quantile(_sample(plane, mask, box), NYUL_SHARES).astype(np.float32)
    knots, first = np.unique(knots, return_index=True)
    if len(knots) < 2 or knots[-1] - knots[0] < kernels.FLAT * max(1.0, abs(float(knots[0]))):
        return zscore(plane, mask, box, config, patch)
    scale = np.asarray(config.standard_scale, dtype=np.float32)[first]
    limits = np.array([-config.clip, config.clip], dtype=np.float32)
    kernels.scale_pieces(plane, mask, box, knots, scale, limits, patch)
    return True


NORMALISERS: dict[str, Normaliser] = {
    "zscore": zscore,
    "minmax": minmax,
    "percentile": percentile,
    "nyul": nyul,
}


def normalise(plane: NDArray[Any], mask: Mask, box: Box, config: SliceConfig) -> Patch | None:
    """Normalise one plane inside the head.

    Args:
        plane: ``[H, W]`` int16 or float32, finite.
        mask: ``[H, W]`` uint8: head or brain.
        box: The mask's bounds.
        config: ``normalisation`` and its parameters.

    Returns:
        The content of ``box``, 0 outside the head; None where the head is constant.
    """
    patch = np.empty((box[1] - box[0], box[3] - box[2]), dtype=np.float32)
    return patch if NORMALISERS[config.normalisation](plane, mask, box, config, patch) else None
