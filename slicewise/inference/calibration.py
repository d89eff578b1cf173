"""What turns logits into probabilities and probabilities into decisions: a part of every bundle."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from slicewise.config import REGIONS
from slicewise.inference.calibration_maps import (
    BetaMap,
    CalibrationMap,
    IdentityMap,
    IsotonicMap,
    Method,
    PlattMap,
    Record,
    TemperatureMap,
    sigmoid,
)

__all__ = [
    "Abstain",
    "BetaMap",
    "Calibration",
    "Calibrator",
    "Candidate",
    "Decision",
    "IdentityMap",
    "IsotonicMap",
    "Method",
    "PlattMap",
    "TemperatureMap",
    "Threshold",
    "sigmoid",
]

Decision = Literal["tumour", "no_tumour", "unsure"]


class Candidate(Record):
    """One method that was tried.

    Attributes:
        method: Its name.
        nll: Mean negative log-likelihood in nats on held-out patients; None where it could not be fitted.
        gain: By how much that is below the identity's.
        gain_error: Standard error of the gain over patients.
    """

    method: Method
    nll: float | None = None
    gain: float | None = None
    gain_error: float | None = None


class Calibrator(Record):
    """Calibration of one output.

    Attributes:
        method: Its name; ``identity`` leaves the network's probability as it is.
        parameters: The map from raw to calibrated logits.
        kept: Whether a fitted map is in use.
        reason: Why it was chosen, or why there is none.
        n: On how many values it was fitted.
        nll_before: Held-out mean negative log-likelihood in nats without calibration.
        nll_after: The same with ``method``.
        candidates: All methods that were tried.
    """

    method: Method = "identity"
    parameters: CalibrationMap = IdentityMap()
    kept: bool = False
    reason: str = "not fitted"
    n: Annotated[int, Field(ge=0)] = 0
    nll_before: float | None = None
    nll_after: float | None = None
    candidates: tuple[Candidate, ...] = ()

    @model_validator(mode="after")
    def _same_method(self) -> Calibrator:
        if self.parameters.method != self.method:
            raise ValueError(f"method {self.method} with the parameters of {self.parameters.method}")
        return self

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities of raw logits of any shape; NaN stays NaN."""
        return sigmoid(self.parameters.forward(logits))

    def logit_cut(self, probability: float) -> float:
        """The lowest raw logit whose calibrated probability reaches this one; ±infinity where all do, or none."""
        if probability <= 0.0:
            return -np.inf
        if probability >= 1.0:
            return np.inf
        return self.parameters.inverse(float(np.log(probability) - np.log1p(-probability)))


class Threshold(Record):
    """The decision threshold on the calibrated probability, and the rule that chose it."""

    value: Annotated[float, Field(ge=0, le=1)] = 0.5
    rule: str = "default"


class Abstain(Record):
    """The band of probabilities in which the answer is "unsure", from conformal prediction.

    Attributes:
        alpha: Accepted share of wrong sure answers, in each class; None where no band was asked for.
        low: From here on the answer is no longer "no tumour"; None where there is no band.
        high: From here on it is "tumour"; may lie just above 1, where it never is.
        patients: Calibration patients with tumour slices, and with slices free of tumour.
        reason: How the band was made, or why there is none.
    """

    alpha: Annotated[float | None, Field(gt=0, lt=0.5)] = None
    low: Annotated[float | None, Field(ge=0, le=1)] = None
    high: Annotated[float | None, Field(ge=0)] = None
    patients: tuple[int, int] = (0, 0)
    reason: str = "not fitted"

    @model_validator(mode="after")
    def _ordered(self) -> Abstain:
        if (self.low is None) != (self.high is None):
            raise ValueError("a band has both ends, or none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @property
    def available(self) -> bool:
        """Whether there is a band."""
        return self.low is not None


class Calibration(Record):
    """Everything that turns logits into probabilities and decisions."""

    tumour: Calibrator = Calibrator()
    regions: dict[str, Calibrator] = Field(default_factory=lambda: {name: Calibrator() for name in REGIONS})
    threshold: Threshold = Threshold()
    abstain: Abstain = Abstain()
    region_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, regions: dict[str, Calibrator]) -> dict[str, Calibrator]:
        if set(regions) != set(REGIONS):
            raise ValueError(f"must be of {', '.join(REGIONS)}, not of {', '.join(regions) or 'nothing'}")
        return regions

    def band(self, threshold: float | None = None) -> tuple[float, float]:
        """Where "no tumour" ends and where "tumour" begins; equal where there is no band.

        Another threshold than the bundle's widens the band up to itself: an answer on which the threshold and
        the band disagree is not sure.

        Args:
            threshold: Decision threshold; None takes the bundle's.
        """
        value = self.threshold.value if threshold is None else threshold
        if self.abstain.low is None or self.abstain.high is None:
            return value, value
        return min(self.abstain.low, value), max(self.abstain.high, value)

    def decide(self, probability: float, threshold: float | None = None) -> Decision:
        """The answer for one slice; a probability that is not a number gives "unsure".

        Args:
            probability: Calibrated probability of tumour.
            threshold: Decision threshold; None takes the bundle's.
        """
        low, high = self.band(threshold)
        if probability >= high:
            return "tumour"
        return "no_tumour" if probability < low else "unsure"
