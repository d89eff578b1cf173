"""What a prepared slice looks like in numbers: each channel's intensities, the head's shape, the encoder's features.

Intensities and shape are taken from the very array that the network sees, so that the store's slices and a caller's
picture are described alike. Everything is relative to the head's own mean and deviation and to the square's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slicewise.slices.kernels.describing import CELLS, describe

QUANTILES = np.array([0.02, 0.10, 0.25, 0.50, 0.75, 0.90, 0.98])
INTENSITY: tuple[str, ...] = (
    *(f"quantile_{round(100 * share):02d}" for share in QUANTILES),
    "skewness",
    "log_kurtosis",
    "log_gradient",
    "log_gradient_2",  # between pixels two apart: noise has as much as between neighbours, tissue more
    "log_laplacian",
    "edge_share",
    "left_right",
    "top_bottom",
    *(f"cell_{row}{column}" for row in range(CELLS) for column in range(CELLS)),
)
SHAPE: tuple[str, ...] = (
    "area",
    "log_aspect",
    "extent",
    "left_right_overlap",
    "top_bottom_overlap",
    "log_perimeter",
    "centre_row",
    "centre_column",
)


@dataclass(frozen=True)
class Described:
    """Slices in numbers, all finite.

    Attributes:
        intensity: ``[N, C, len(INTENSITY)]``, 0 for missing channels.
        shape: ``[N, len(SHAPE)]``.
        present: ``[N, C]``: which channels hold something.
    """

    intensity: NDArray[np.float32]
    shape: NDArray[np.float32]
    present: NDArray[np.bool_]


def describe_slices(images: NDArray[np.floating[Any]]) -> Described:
    """Describe prepared slices.

    Args:
        images: ``[N, C, size, size]`` normalised, 0 outside the head and in missing channels.
    """
    # Where numpy widens float16 number by number, torch has an instruction for it.
    planes = torch.from_numpy(np.ascontiguousarray(images)).float().numpy()
    intensity = np.zeros((*planes.shape[:2], len(INTENSITY)), dtype=np.float32)
    shape = np.zeros((len(planes), len(SHAPE)), dtype=np.float32)
    for image, channels, outline in zip(planes, intensity, shape, strict=True):
        describe(image, QUANTILES, channels, outline)
    return Described(intensity, shape, np.asarray(planes.any(axis=(2, 3))))


def pool_features(features: Sequence[Tensor]) -> NDArray[np.float32]:
    """Mean and deviation over space of the encoder's features, all levels but the finest.

    Args:
        features: Of every level, ``[N, C, h, w]`` each, finest first.

    Returns:
        ``[N, F]``, each row from its own slice alone.
    """
    pooled = []
    for level in features[1:]:
        flat = level.detach().float().flatten(2)
        mean = flat.mean(dim=2)
        # Two plain sums: several times as fast as torch.var_mean, and the features are of the order of 1.
        squares = torch.linalg.vector_norm(flat, dim=2).square() / flat.shape[2]
        pooled += [mean, (squares - mean.square()).clamp_min(0).sqrt()]
    return torch.cat(pooled, dim=1).cpu().numpy()


def pooled_width(widths: Sequence[int]) -> int:
    """F of ``pool_features`` for an encoder of these widths."""
    return 2 * sum(widths[1:])
