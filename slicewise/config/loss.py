"""The section ``train.loss``: what the network is trained to make small."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from slicewise.config.base import Positive, Section, Share

SegmentationLoss = Literal["dice_bce", "dice", "bce", "focal", "tversky", "dice_focal"]
RegionWeight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class LossConfig(Section):
    """Both tasks' losses; the formulas and their sources stand in ``docs/losses.md``.

    Attributes:
        segmentation: The loss of the region maps.
        region_weights: Of WT, TC and ET in the mean over regions; only their ratios count.
        focal_gamma: How much focal losses spare what is already right; 0 makes them cross-entropies.
        focal_alpha: Weight of tumour pixels in the segmentation's focal loss, 1 - alpha that of the others;
            None weighs neither.
        tversky_alpha: Weight of false positives.
        tversky_beta: Weight of false negatives; above ``tversky_alpha`` it buys sensitivity.
        classification: The loss of the tumour class.
        label_smoothing: Moves the classes 0 and 1 towards 1/2 by this share of the way.
        pos_weight: Weight of tumour slices in the classification loss; ``balanced`` takes the training slices'
            ratio of negatives to positives.
    """

    segmentation: SegmentationLoss = "dice_bce"
    region_weights: tuple[RegionWeight, RegionWeight, RegionWeight] = (1.0, 1.0, 1.0)
    focal_gamma: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 2.0
    focal_alpha: Share | None = None
    tversky_alpha: Annotated[Positive, Field(allow_inf_nan=False)] = 0.3
    tversky_beta: Annotated[Positive, Field(allow_inf_nan=False)] = 0.7
    classification: Literal["bce", "focal"] = "bce"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    pos_weight: float | Literal["balanced"] = 1.0

    @field_validator("region_weights")
    @classmethod
    def _some_region_counts(cls, weights: tuple[float, float, float]) -> tuple[float, float, float]:
        if not any(weights):
            raise ValueError("at least one region needs a weight above 0")
        return weights

    @field_validator("pos_weight", mode="before")
    @classmethod
    def _weight_or_word(cls, weight: object) -> object:
        # Said before pydantic tries both types: its own message would name keys that nobody can set.
        if weight == "balanced":
            return weight
        if isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf:
            return weight
        raise ValueError("should be 'balanced' or a number above 0")
