"""The sections ``calibrate`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slicewise.config.base import Positive, Section, Share


class CalibrateConfig(Section):
    """Probabilities and decisions, fitted on the validation split.

    Attributes:
        folds: Of the patients, to judge a method on those that it was not fitted on.
        n_bins: Bins of the calibration errors.
        bootstrap: Draws of patients for the intervals of the validation's figures.
        confidence: Of these intervals.
        methods: What is tried for the slice's probability; none leaves the network's own.
        threshold_rule: Youden's index, a sensitivity to reach, or the costs of the two errors.
        target_sensitivity: For the rule ``sensitivity``.
        cost_fn: Of a missed tumour, for the rule ``cost``.
        cost_fp: Of a false alarm.
        alpha: Accepted share of wrong sure answers in each class; null leaves out the band of unsure answers.
    """

    folds: Annotated[int, Field(ge=2)] = 5
    n_bins: Annotated[int, Field(ge=2)] = 10
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    methods: tuple[Literal["temperature", "platt", "beta", "isotonic"], ...] = (
        "temperature",
        "platt",
        "beta",
        "isotonic",
    )
    threshold_rule: Literal["youden", "sensitivity", "cost"] = "youden"
    target_sensitivity: Share = 0.95
    cost_fn: Positive = 1.0
    cost_fp: Positive = 1.0
    alpha: Annotated[float | None, Field(gt=0, lt=0.5)] = 0.1


class EvaluateConfig(Section):
    """The test split, judged once.

    Attributes:
        bootstrap: Draws of patients for an interval.
        confidence: Of the intervals.
        n_bins: Bins of the reliability diagrams.
        mc_samples: Monte-Carlo dropout samples per slice for the uncertainty; 0 leaves it out.
        mirror: Show every slice mirrored left to right, too (test-time augmentation).
        ensemble: Weight folders of further networks, trained with other seeds on this split's training side; the
            samples are shared out over all networks, one each at least. The answer that is judged stays the one
            network's.
        explain_method: How the report draws the evidence for tumour. HiResCAM lies on the tumour far more often than
            Grad-CAM (docs/uncertainty.md); occlusion takes some hundred passes.
        pictured_slices: Pictures of each study in the report; 0 draws none.
        pictured_studies: At most so many studies are pictured: the worst and the best, and others evenly between.
    """

    bootstrap: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    n_bins: Annotated[int, Field(ge=2)] = 10
    mc_samples: Annotated[int, Field(ge=0, le=50)] = 8
    mirror: bool = False
    ensemble: tuple[Path, ...] = ()
    explain_method: Literal["gradcam", "hirescam", "integrated_gradients", "occlusion"] = "hirescam"
    pictured_slices: Annotated[int, Field(ge=0, le=20)] = 5
    pictured_studies: Annotated[int, Field(ge=0)] = 100
