"""Losses that take only what is known: partial masks, missing masks, unknown classes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from monai.losses import DiceLoss


@functools.cache
def _dice() -> DiceLoss:
    # MONAI takes seconds to import: only training pays for it. ``batch=True`` pools a batch's slices, so that
    # a slice without tumour does not turn the loss into noise.
    from monai.losses import DiceLoss

    return DiceLoss(sigmoid=False, batch=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")


def segmentation_loss(logits: Tensor, regions: Tensor, known: Tensor) -> Tensor:
    """Dice plus binary cross-entropy over the known regions.

    Dice after Milletari et al., "V-Net", 3DV 2016, through MONAI. An unknown region's probability and target
    are both zeroed, so that it adds to neither side of the ratio.

    Args:
        logits: ``[N, R, H, W]``.
        regions: ``[N, R, H, W]``, 0 or 1.
        known: ``[N, R]``, 1 where the region is known.

    Returns:
        A scalar; 0 (with a gradient of 0) when nothing is known.
    """
    weight = known[:, :, None, None]
    per_region = known.amax(dim=0)
    dice: Tensor = _dice()(torch.sigmoid(logits) * weight, regions * weight).flatten()
    dice = (dice * per_region).sum() / per_region.sum().clamp_min(1.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, regions, reduction="none").mean(dim=(2, 3))
    return dice + (entropy * known).sum() / known.sum().clamp_min(1.0)


def classification_loss(logits: Tensor, tumour: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy ``[N]`` over the slices whose class is known; 0 when none is."""
    entropy = functional.binary_cross_entropy_with_logits(logits, tumour, reduction="none")
    return (entropy * known).sum() / known.sum().clamp_min(1.0)
