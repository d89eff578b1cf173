"""Losses that take only what is known: partial masks, missing masks, unknown classes.

``docs/losses.md`` lists them with their formulas and sources.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from slicewise.config import LossConfig

if TYPE_CHECKING:
    from monai.losses import DiceLoss, TverskyLoss

DEFAULT = LossConfig()


@dataclass(frozen=True)
class Losses:
    """Both tasks' losses as one run uses them.

    Attributes:
        config: The section ``train.loss``.
        pos_weight: Weight of tumour slices in the classification loss.
    """

    config: LossConfig = DEFAULT
    pos_weight: float = 1.0

    @classmethod
    def build(cls, config: LossConfig, tumour: Iterable[bool | None]) -> Losses:
        """The losses of ``config`` for training slices of the classes ``tumour``."""
        return cls(config, positive_weight(config.pos_weight, tumour))

    def segmentation(self, logits: Tensor, regions: Tensor, known: Tensor) -> Tensor:
        """``segmentation_loss`` as configured."""
        return segmentation_loss(logits, regions, known, self.config)

    def scales(self, logits: Sequence[Tensor], regions: Tensor, known: Tensor) -> Tensor:
        """``segmentation`` of the full size and, with deep supervision, of the coarser ones.

        Each further scale weighs half of the one before, and all together 1, as in nnU-Net (Isensee et al.,
        Nature Methods 2021). A coarse pixel belongs to a region when at least half of it does.

        Args:
            logits: ``[N, R, H, W]``, ``[N, R, H/2, W/2]`` and so on.
            regions: ``[N, R, H, W]``, 0 or 1.
            known: ``[N, R]``.
        """
        total = logits[0].new_zeros(())
        for level, scale in enumerate(logits):
            target = regions if level == 0 else (functional.avg_pool2d(regions, 2**level) >= 0.5).float()
            total = total + 0.5**level * self.segmentation(scale.float(), target, known)
        return total / sum(0.5**level for level in range(len(logits)))

    def classification(self, logits: Tensor, tumour: Tensor, known: Tensor) -> Tensor:
        """``classification_loss`` as configured."""
        return classification_loss(logits, tumour, known, self.config, self.pos_weight)


DEFAULT_LOSSES = Losses()


def segmentation_loss(logits: Tensor, regions: Tensor, known: Tensor, config: LossConfig = DEFAULT) -> Tensor:
    """The configured loss over the known regions: a mean over what is known, weighted by region.

    Overlap losses (Dice, Tversky) pool a batch's slices per region; an unknown region's probability and target
    are both zeroed, so that it adds to neither side of the ratio. Pixel losses (cross-entropy, focal) are means
    over each map's pixels, then over the known maps.

    Args:
        logits: ``[N, R, H, W]``.
        regions: ``[N, R, H, W]``, 0 or 1.
        known: ``[N, R]``, 1 where the region is known.
        config: Which loss, its parameters and the region weights.

    Returns:
        A scalar; 0 (with a gradient of 0) when nothing is known.
    """
    parts = (part(logits, regions, known, config) for part in _PARTS[config.segmentation])
    return functools.reduce(torch.add, parts)


def classification_loss(
    logits: Tensor, tumour: Tensor, known: Tensor, config: LossConfig = DEFAULT, pos_weight: float = 1.0
) -> Tensor:
    """The configured loss over the slices whose class is known; 0 when none is.

    Label smoothing after Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, for two classes.

    Args:
        logits: ``[N]``.
        tumour: ``[N]``, 0 or 1.
        known: ``[N]``, 1 where the class is known.
        config: Which loss, and its parameters; its ``pos_weight`` is not read here, as it may be a word.
        pos_weight: Weight of the positive term.
    """
    target = tumour * (1.0 - config.label_smoothing) + 0.5 * config.label_smoothing
    if config.classification == "focal":
        # A smoothed target is a mixture of both classes; MONAI's formula holds for 0 and 1 only.
        positive = pos_weight * target * _focal(logits, torch.ones_like(target), config.focal_gamma)
        values = positive + (1.0 - target) * _focal(logits, torch.zeros_like(target), config.focal_gamma)
    else:
        weight = None if pos_weight == 1.0 else logits.new_tensor(pos_weight)
        values = functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
    return _mean(values, known)


def positive_weight(setting: float | Literal["balanced"], tumour: Iterable[bool | None]) -> float:
    """The weight of tumour slices in the classification loss.

    Args:
        setting: A weight, or ``balanced`` for negatives / positives, which gives both classes the same sum of
            weights.
        tumour: The class of every training slice; None where unknown, which does not count.

    Returns:
        The weight; 1 where ``balanced`` finds one class only.
    """
    if setting != "balanced":
        return setting
    classes = [value for value in tumour if value is not None]
    positives = sum(classes)
    return (len(classes) - positives) / positives if 0 < positives < len(classes) else 1.0


# MONAI takes seconds to import: only training pays for it. ``batch=True`` pools a batch's slices, so that a
# slice without tumour does not turn the loss into noise.


@functools.cache
def _dice_loss() -> DiceLoss:
    from monai.losses import DiceLoss

    return DiceLoss(sigmoid=False, batch=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")


@functools.cache
def _tversky_loss(alpha: float, beta: float) -> TverskyLoss:
    from monai.losses import TverskyLoss

    # Half of Dice's smoothing: with alpha = beta = 1/2 both losses are the same number.
    return TverskyLoss(alpha=alpha, beta=beta, batch=True, smooth_nr=0.5, smooth_dr=0.5, reduction="none")


def _focal(logits: Tensor, target: Tensor, gamma: float, alpha: float | None = None) -> Tensor:
    """Focal loss of every element, for targets of exactly 0 or 1."""
    # Not the class ``FocalLoss``: it turns float64 into float32.
    from monai.losses.focal_loss import sigmoid_focal_loss

    values: Tensor = sigmoid_focal_loss(logits, target, gamma, alpha)
    return values


def _dice_part(logits: Tensor, regions: Tensor, known: Tensor, config: LossConfig) -> Tensor:
    return _overlap_part(_dice_loss(), logits, regions, known, config)


def _tversky_part(logits: Tensor, regions: Tensor, known: Tensor, config: LossConfig) -> Tensor:
    loss = _tversky_loss(config.tversky_alpha, config.tversky_beta)
    return _overlap_part(loss, logits, regions, known, config)


def _overlap_part(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, regions: Tensor, known: Tensor, config: LossConfig
) -> Tensor:
    here = known[:, :, None, None]
    per_region = loss(torch.sigmoid(logits) * here, regions * here).flatten()
    return _mean(per_region, _weighted(known.amax(dim=0), config))


def _entropy_part(logits: Tensor, regions: Tensor, known: Tensor, config: LossConfig) -> Tensor:
    values = functional.binary_cross_entropy_with_logits(logits, regions, reduction="none")
    return _mean(values.mean(dim=(2, 3)), _weighted(known, config))


def _focal_part(logits: Tensor, regions: Tensor, known: Tensor, config: LossConfig) -> Tensor:
    values = _focal(logits, regions, config.focal_gamma, config.focal_alpha)
    return _mean(values.mean(dim=(2, 3)), _weighted(known, config))


_PARTS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor, LossConfig], Tensor], ...]] = {
    "dice_bce": (_dice_part, _entropy_part),
    "dice": (_dice_part,),
    "bce": (_entropy_part,),
    "focal": (_focal_part,),
    "tversky": (_tversky_part,),
    "dice_focal": (_dice_part, _focal_part),
}


def _weighted(known: Tensor, config: LossConfig) -> Tensor:
    """``known`` ``[..., R]`` times the region weights."""
    weights = config.region_weights
    return known if set(weights) == {1.0} else known * known.new_tensor(weights)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean; 0 where all weights are 0."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))
