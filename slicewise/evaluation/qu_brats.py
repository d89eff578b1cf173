"""The QU-BraTS score of a segmentation's uncertainty.

After Mehta et al., "QU-BraTS: MICCAI BraTS 2020 challenge on quantifying uncertainty in brain tumor segmentation",
MELBA 2022. At each threshold the voxels of greater uncertainty are filtered out. The score rewards a Dice of the rest
that rises, and punishes right voxels that are filtered out:

    score = (AUC of Dice + (1 - AUC of filtered TP) + (1 - AUC of filtered TN)) / 3

The thresholds are those of the challenge's evaluation code, 0 to 100 in steps of 2.5; so are the area, by trapezoids
over 100, and the Dice of 1 where neither prediction nor reference is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.evaluation.outcomes import FN, FP, TN, TP, Outcomes

THRESHOLDS = tuple(2.5 * step for step in range(41))
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class QuBrats:
    """Scores of one study and region.

    Attributes:
        dice_auc: Of the Dice of the voxels that are left.
        ftp_auc: Of the share of true positives filtered out.
        ftn_auc: Of the share of true negatives filtered out.
        score: 0 to 1, higher is better.
        dice: The curve over ``THRESHOLDS``.
        ftp: The same.
        ftn: The same.
    """

    dice_auc: float
    ftp_auc: float
    ftn_auc: float
    score: float
    dice: tuple[float, ...]
    ftp: tuple[float, ...]
    ftn: tuple[float, ...]


def qu_brats(outcomes: Outcomes) -> QuBrats | None:
    """Score one region of a study.

    Returns:
        None where the reference is empty: its Dice is undefined. (The challenge gave 1 or 0 there.)
    """
    if not (outcomes.counts[FN].any() or outcomes.counts[TP].any()):
        return None
    left = _left(outcomes)
    found = 2 * left[TP]
    size = found + left[FN] + left[FP]
    dice = np.where(size > 0, found / np.maximum(size, 1), 1.0)
    ftp, ftn = (_filtered(left[kind]) for kind in (TP, TN))
    of_dice, of_ftp, of_ftn = (float(np.trapezoid(curve, THRESHOLDS)) / 100 for curve in (dice, ftp, ftn))
    score = (of_dice + (1 - of_ftp) + (1 - of_ftn)) / 3
    curves = [tuple(curve.tolist()) for curve in (dice, ftp, ftn)]
    return QuBrats(of_dice, of_ftp, of_ftn, score, curves[0], curves[1], curves[2])


def _left(outcomes: Outcomes) -> Curve:
    """``[4, thresholds]``: how many voxels of each kind are not more uncertain than each threshold."""
    below = np.pad(np.cumsum(outcomes.counts, axis=1), ((0, 0), (1, 0)))
    return below[:, np.searchsorted(outcomes.percent, THRESHOLDS, side="right")]


def _filtered(left: Curve) -> Curve:
    """The share that is filtered out; 0 where there is nothing to filter."""
    share: Curve = (left[-1] - left) / max(float(left[-1]), 1.0)
    return share
