"""The ways to calibrate one output: each maps a raw logit to a calibrated one and never falls.

A map that never falls keeps the order of the slices, and a cut on the calibrated probability is a cut on the raw
logit, which ``inverse`` gives.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.optimize import brentq

Method = Literal["identity", "temperature", "platt", "isotonic", "beta"]
Logits = NDArray[np.float32]
# Logits of a trained network lie within some tens; this only bounds the search for an inverse.
WIDEST_LOGIT = 1e6


class Record(BaseModel):
    """Base of the calibration's records: frozen, finite, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def sigmoid(logits: Logits) -> Logits:
    """Logistic function without overflow, in float32."""
    probability: Logits = (0.5 * (1.0 + np.tanh(0.5 * logits))).astype(np.float32)
    return probability


def softplus(values: NDArray[Any]) -> NDArray[Any]:
    """``log(1 + exp(values))`` without overflow; much faster than ``np.logaddexp``."""
    softened: NDArray[Any] = np.maximum(values, 0) + np.log1p(np.exp(-np.abs(values)))
    return softened


class IdentityMap(Record):
    """The logit as it is."""

    method: ClassVar[Method] = "identity"

    def forward(self, logits: Logits) -> Logits:
        """Calibrated logits, of any shape."""
        return logits

    def inverse(self, target: float) -> float:
        """The lowest raw logit whose calibrated logit reaches ``target``; ±infinity where all do, or none."""
        return target


class TemperatureMap(Record):
    """``logit / temperature`` (Guo et al., "On calibration of modern neural networks", ICML 2017)."""

    method: ClassVar[Method] = "temperature"
    temperature: Annotated[float, Field(gt=0)]

    def forward(self, logits: Logits) -> Logits:
        """Calibrated logits, of any shape."""
        return logits / np.float32(self.temperature)

    def inverse(self, target: float) -> float:
        """The lowest raw logit whose calibrated logit reaches ``target``; ±infinity where all do, or none."""
        return target * self.temperature


class PlattMap(Record):
    """``slope * logit + intercept`` (Platt, 1999); for one output, vector scaling is the same."""

    method: ClassVar[Method] = "platt"
    slope: Annotated[float, Field(gt=0)]
    intercept: float

    def forward(self, logits: Logits) -> Logits:
        """Calibrated logits, of any shape."""
        return np.float32(self.slope) * logits + np.float32(self.intercept)

    def inverse(self, target: float) -> float:
        """The lowest raw logit whose calibrated logit reaches ``target``; ±infinity where all do, or none."""
        return (target - self.intercept) / self.slope


class BetaMap(Record):
    """``a log p - b log(1 - p) + c`` of the raw probability p (Kull, Silva Filho and Flach, AISTATS 2017)."""

    method: ClassVar[Method] = "beta"
    a: Annotated[float, Field(ge=0)]
    b: Annotated[float, Field(ge=0)]
    c: float

    @model_validator(mode="after")
    def _rises(self) -> BetaMap:
        if self.a == self.b == 0:
            raise ValueError("a and b are both 0: every slice would get the same probability")
        return self

    def forward(self, logits: Logits) -> Logits:
        """Calibrated logits, of any shape."""
        # log p = -log(1 + exp(-z)) and log(1 - p) = -log(1 + exp(z))
        bent = np.float32(self.b) * softplus(logits) - np.float32(self.a) * softplus(-logits)
        return (bent + np.float32(self.c)).astype(np.float32, copy=False)

    def inverse(self, target: float) -> float:
        """The lowest raw logit whose calibrated logit reaches ``target``; ±infinity where all do, or none."""

        def above(logit: float) -> float:
            up, down = softplus(np.array([logit, -logit]))
            return float(self.b * up - self.a * down + self.c - target)

        if above(-WIDEST_LOGIT) >= 0:
            return -np.inf
        return float(brentq(above, -WIDEST_LOGIT, WIDEST_LOGIT)) if above(WIDEST_LOGIT) > 0 else np.inf


class IsotonicMap(Record):
    """Straight lines between knots, level beyond the outer ones (Zadrozny and Elkan, KDD 2002).

    Attributes:
        knots: Raw and calibrated logit of each; the raw ones rise, the calibrated ones never fall.
    """

    method: ClassVar[Method] = "isotonic"
    knots: Annotated[tuple[tuple[float, float], ...], Field(min_length=2)]

    @field_validator("knots")
    @classmethod
    def _rise(cls, knots: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if any(right[0] <= left[0] or right[1] < left[1] for left, right in pairwise(knots)):
            raise ValueError("knots must rise in the raw logit and never fall in the calibrated one")
        return knots

    def forward(self, logits: Logits) -> Logits:
        """Calibrated logits, of any shape."""
        raw, calibrated = np.array(self.knots).T
        between: Logits = np.interp(logits, raw, calibrated).astype(np.float32)
        return between

    def inverse(self, target: float) -> float:
        """The lowest raw logit whose calibrated logit reaches ``target``; ±infinity where all do, or none."""
        raw, calibrated = np.array(self.knots).T
        at = int(np.searchsorted(calibrated, target))
        if at == 0:
            return -np.inf
        if at == len(calibrated):
            return np.inf
        share = (target - calibrated[at - 1]) / (calibrated[at] - calibrated[at - 1])
        return float(raw[at - 1] + share * (raw[at] - raw[at - 1]))


CalibrationMap = IdentityMap | TemperatureMap | PlattMap | BetaMap | IsotonicMap
