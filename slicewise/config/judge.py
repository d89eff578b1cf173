"""The sections ``calibrate``, ``evaluate`` and ``gate``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slicewise.config.base import Count, Section, Share


class CalibrateConfig(Section):
    """Temperature and decision threshold, fitted on the validation split."""

    folds: Annotated[int, Field(ge=2)] = 5
    n_bins: Annotated[int, Field(ge=2)] = 10
    threshold_rule: Literal["youden", "sensitivity"] = "youden"
    target_sensitivity: Share = 0.95


class EvaluateConfig(Section):
    """The test split, judged once."""

    bootstrap: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    n_bins: Annotated[int, Field(ge=2)] = 10
    batch_size: Count = 32


class GateConfig(Section):
    """Least (``min_``) and greatest (``max_``) acceptable test figures; null or left out is not judged."""

    min_roc_auc: Share | None = None
    min_sensitivity: Share | None = None
    min_dice_wt: Share | None = None
    max_ece: Share | None = None
