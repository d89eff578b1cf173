"""The section ``gate``: what a model must reach before it may be deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from slicewise.config.base import Count, Section, Share
from slicewise.config.metric_names import check_name

Bound = Literal["value", "low", "high"]
Metric = Annotated[str, AfterValidator(check_name)]
Drop = Annotated[float, Field(ge=0)]


class GateCondition(Section):
    """A limit for one figure of the test split.

    Attributes:
        metric: A short name (``roc_auc``, ``dice_wt``…) or a dotted path in ``metrics.json``.
        bound: What is held against the limit: the value, or the lower or upper end of its interval.
        min: The least acceptable.
        max: The greatest acceptable.
        require: An undefined figure fails. Otherwise it is not held against the model.
    """

    metric: Metric
    bound: Bound = "value"
    min: float | None = None
    max: float | None = None
    require: bool = False

    @model_validator(mode="after")
    def _limited(self) -> GateCondition:
        if self.min is None and self.max is None:
            raise ValueError("a condition needs min, max or both")
        return self


class SubgroupFloor(Section):
    """A limit that every large enough subgroup has to keep.

    Attributes:
        metric: A figure of ``metrics.json``'s subgroups: ``dice_wt``, ``roc_auc``…
        by: The groupings; empty takes all there are (``source``, ``grade``, ``size``).
        min_n: Subgroups whose figure rests on fewer patients are told, not judged.
    """

    metric: str = "dice_wt"
    by: tuple[str, ...] = ()
    bound: Bound = "value"
    min: float | None = None
    max: float | None = None
    min_n: Count = 5

    @model_validator(mode="after")
    def _limited(self) -> SubgroupFloor:
        if self.min is None and self.max is None:
            raise ValueError("a subgroup floor needs min, max or both")
        return self


class CalibrationLimits(Section):
    """Limits for the calibrated probabilities on the test split.

    Attributes:
        outputs: Which outputs: ``tumour``, ``WT``, ``TC``, ``ET``.
        max_ece: The greatest acceptable expected calibration error after calibration.
        bound: What of the ECE is held against it.
        nll_not_worse: Calibration may not raise the negative log-likelihood.
    """

    outputs: tuple[Literal["tumour", "WT", "TC", "ET"], ...] = ("tumour",)
    max_ece: Share | None = None
    bound: Bound = "value"
    nll_not_worse: bool = False


class ChampionRule(Section):
    """How much worse than the champion a model may be.

    Attributes:
        max_drop: Figure → by how much it may be worse, in its own unit; null does not compare it.
        bound: ``value`` judges the difference itself; ``low`` the lower end of its interval (non-inferiority).
    """

    max_drop: dict[Metric, Drop | None] = Field(default={"roc_auc": 0.02, "dice_wt": 0.02})
    bound: Literal["value", "low"] = "value"


class GateConfig(Section):
    """Least (``min_``) and greatest (``max_``) acceptable test figures; null or left out is not judged.

    Attributes:
        conditions: Further limits, also for the ends of intervals.
        subgroups: Floors for subgroups.
        calibration: Limits for the calibrated probabilities.
        champion: The model to compare with: a bundle, a run's folder, or a ``metrics.json``.
        champion_rule: How much worse than it a model may be.
    """

    min_roc_auc: Share | None = None
    min_sensitivity: Share | None = None
    min_dice_wt: Share | None = None
    max_ece: Share | None = None
    conditions: tuple[GateCondition, ...] = ()
    subgroups: tuple[SubgroupFloor, ...] = ()
    calibration: CalibrationLimits = CalibrationLimits()
    champion: Path | None = None
    champion_rule: ChampionRule = ChampionRule()
