"""Out of distribution: how unlike the training slices an input is.

Four parts are looked at, each against slices of patients that it was not fitted on: ``intensity`` (each channel's
histogram, texture and layout), ``shape`` (the head's outline), ``features`` (the encoder's pooled features) and
``view`` (whether a channel looks turned, inverted or like another sequence). How it is fitted is in
``slicewise.evaluation.ood``; why, in ``docs/decisions/0019-ood.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from slicewise.inference.ood_distance import Matrix
from slicewise.inference.ood_model import PARTS, OodModel, set_of
from slicewise.inference.slice_statistics import describe_slices

OOD_FILE = "ood.safetensors"
OOD_RECORD = "ood.json"
FALSE_ALARM = 0.05
Share = Annotated[float, Field(ge=0, le=1)]


class OodRecord(BaseModel):
    """What a bundle says of its out-of-distribution score.

    Attributes:
        version: Of the score's definition and of ``ood.safetensors``.
        threshold: An input whose score is above it is flagged; None when the bundle has no score.
        reason: Why it has none.
        false_alarm: The share of a patient's slices that may be flagged, averaged over the validation patients and
            the training patients, these judged by what was fitted without them.
        flagged: The share that the threshold does flag.
        train_slices: How many training slices were looked at.
        train_patients: Of how many patient groups.
        validation_slices: How many validation slices were looked at.
        validation_patients: Of how many patient groups.
        seen: The modalities that training had enough slices of; any other is flagged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    threshold: Share | None = None
    reason: str = ""
    false_alarm: Share = FALSE_ALARM
    flagged: Share | None = None
    train_slices: int = 0
    train_patients: int = 0
    validation_slices: int = 0
    validation_patients: int = 0
    seen: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_why(self) -> OodRecord:
        if self.threshold is None and not self.reason:
            raise ValueError("ood: without a threshold there must be a reason")
        return self


NOT_FITTED = OodRecord(reason="not fitted")


@dataclass(frozen=True)
class OodScore:
    """Of one slice.

    Attributes:
        score: 0 (typical) to 1: one minus the conformal p-value.
        flag: Whether it is above the bundle's threshold.
        parts: How surprising each of ``PARTS`` is: minus the log of its p-value; 0 is typical.
    """

    score: float
    flag: bool
    parts: Mapping[str, float]


class OodScorer:
    """Scores the slices of a batch, each for itself.

    Args:
        model: What was fitted.
        threshold: Above it a slice is flagged.
    """

    def __init__(self, model: OodModel, threshold: float) -> None:
        self.model = model
        self.threshold = np.float32(threshold)

    def score(self, images: NDArray[np.floating[Any]], pooled: NDArray[np.float32]) -> list[OodScore]:
        """The scores.

        Args:
            images: ``[N, C, size, size]`` prepared slices.
            pooled: ``[N, F]`` as ``pool_features`` gives them, of the same slices.
        """
        described = describe_slices(images)
        parts = self.model.parts(self.model.distances(described, pooled))
        scores = score_parts(self.model, described.present, parts)
        return [
            OodScore(float(score), bool(score > self.threshold), dict(zip(PARTS, row, strict=True)))
            for score, row in zip(scores, parts.tolist(), strict=True)
        ]


def score_parts(model: OodModel, present: NDArray[np.bool_], parts: Matrix) -> NDArray[np.float32]:
    """The score of each slice: its parts' sum (Fisher, 1932) among the sums of slices with the same modalities.

    In float32, as it goes over the wire, so that everybody who compares it with the threshold finds the same.
    """
    total = parts.sum(axis=1)
    log_p = np.empty(len(total))
    sets = set_of(present)
    for number in np.unique(sets):
        rows = sets == number
        log_p[rows] = model.total[number].log_p(total[rows])
    never = (present > model.channels.seen).any(axis=1)
    return np.where(never, 1.0, -np.expm1(log_p)).astype(np.float32)
