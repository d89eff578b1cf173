"""What is written of one item: a line of the journal, an entry of ``predictions.json``, a row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from slicewise import RESEARCH_USE
from slicewise.config import REGIONS
from slicewise.errors import SliceWiseError
from slicewise.inference.measures import StudyMeasures
from slicewise.inference.predict.model import ModelFacts
from slicewise.inference.predictor import Prediction, SliceInput
from slicewise.inference.study import SliceRecord, StudyPrediction


class Record(BaseModel):
    """A part of what is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(Record):
    """Why an item, or one slice of a study, failed."""

    message: str
    cure: str

    @classmethod
    def of(cls, error: SliceWiseError) -> Failure:
        """That of an error."""
        return cls(message=error.message, cure=error.cure)


class RegionSize(Record):
    """How large a region's mask is; None where the spacing is unknown, or a size makes no sense for the kind."""

    pixels: int
    area_mm2: float | None = None
    volume_ml: float | None = None


class SliceFigures(Record):
    """One slice of a study; all None where it has no head or failed."""

    index: int
    tumor_probability: float | None
    tumor_label: bool | None
    ood_score: float | None
    mean_uncertainty: float | None
    error: Failure | None


class Figures(Record):
    """What the model says of one item.

    Attributes:
        tumor_probability: Calibrated; a study's is the highest of its slices'.
        tumor_label: Whether it reaches the threshold.
        threshold: The threshold used.
        decision: ``tumour``, ``no_tumour`` or ``unsure``.
        modalities: As the model was shown them.
        ood_score: Of a slice: how unlike the training slices it is, 0 to 1.
        ood_flag: Of a slice: whether that is above the model's threshold.
        ood_share: Of a study: share of the flagged slices.
        mean_uncertainty: Mean predictive entropy of WT over the head, nats; of a study, over its slices.
        trained_regions: The model was taught these; the others' masks are empty.
        regions: Size of WT, TC and ET; empty without ``segment``.
        measures: Of a study: diameters, side, pieces.
        slices: Of a study.
    """

    tumor_probability: float
    tumor_label: bool
    threshold: float
    decision: str
    modalities: tuple[str, ...]
    ood_score: float | None = None
    ood_flag: bool | None = None
    ood_share: float | None = None
    mean_uncertainty: float | None = None
    trained_regions: tuple[str, ...]
    regions: dict[str, RegionSize] = {}
    measures: StudyMeasures | None = None
    slices: tuple[SliceFigures, ...] = ()


class ItemRecord(Record):
    """One item, done or failed.

    Attributes:
        item: Its name.
        kind: ``slice`` or ``study``.
        status: ``done`` or ``failed``.
        key: SHA-256 over name, content, model and options: the same key is the same answer.
        figures: What the model says; None where it failed.
        mask: File of the mask below the output folder.
        overlay: File of the picture.
        warnings: What was repaired or left out while reading.
        error: Why it failed.
        model: Which model answered.
        research_use: What the result is not for.
    """

    item: str
    kind: Literal["slice", "study"]
    status: Literal["done", "failed"]
    key: str
    figures: Figures | None = None
    mask: str | None = None
    overlay: str | None = None
    warnings: tuple[str, ...] = ()
    error: Failure | None = None
    model: ModelFacts
    research_use: str = RESEARCH_USE

    @property
    def told(self) -> str:
        """Why it failed and what to do about it, in one line; empty where it is done."""
        return f"{self.error.message} — {self.error.cure}" if self.error else ""


def slice_figures(prediction: Prediction, item: SliceInput, spacing_known: bool) -> Figures:
    """What is said of a single slice."""
    head = prediction.uncertainty_scores.head if prediction.uncertainty_scores else None
    pixel_mm2 = item.pixel_mm[0] * item.pixel_mm[1] if spacing_known else None
    return Figures(
        tumor_probability=prediction.tumor_probability,
        tumor_label=prediction.tumor_label,
        threshold=prediction.threshold,
        decision=prediction.decision,
        modalities=item.modalities,
        ood_score=prediction.ood_score,
        ood_flag=prediction.ood_flag,
        mean_uncertainty=head.predictive_entropy if head else None,
        trained_regions=prediction.trained_regions,
        regions={} if prediction.mask is None else _areas(prediction.mask, pixel_mm2),
    )


def study_figures(prediction: StudyPrediction) -> Figures:
    """What is said of a study."""
    uncertain = [one.mean_uncertainty for one in prediction.slices if one.mean_uncertainty is not None]
    return Figures(
        tumor_probability=prediction.tumor_probability,
        tumor_label=prediction.tumor_label,
        threshold=prediction.threshold,
        decision=prediction.decision,
        modalities=prediction.modalities,
        ood_share=prediction.ood_share,
        mean_uncertainty=float(np.mean(uncertain)) if uncertain else None,
        trained_regions=prediction.trained_regions,
        regions={} if prediction.mask is None else _volumes(prediction.mask, prediction.measures),
        measures=prediction.measures,
        slices=tuple(_one_of_study(one) for one in prediction.slices),
    )


def flat_row(record: ItemRecord) -> dict[str, Any]:
    """The record as one row of a table; lists are counted or joined."""
    figures = record.figures
    row: dict[str, Any] = {"item": record.item, "kind": record.kind, "status": record.status}
    for name in ("tumor_probability", "tumor_label", "threshold", "decision", "ood_score", "ood_flag", "ood_share"):
        row[name] = getattr(figures, name, None)
    row["mean_uncertainty"] = getattr(figures, "mean_uncertainty", None)
    row["modalities"] = " ".join(figures.modalities) if figures else None
    for region in REGIONS:
        size = figures.regions.get(region) if figures else None
        for name in RegionSize.model_fields:
            row[f"{region}_{name}"] = getattr(size, name, None)
    row["n_slices"] = len(figures.slices) if figures and figures.slices else None
    failed = [one for one in figures.slices if one.error] if figures else []
    row["failed_slices"] = len(failed) if row["n_slices"] else None
    row |= {"mask": record.mask, "overlay": record.overlay}
    row |= {"error": getattr(record.error, "message", None), "cure": getattr(record.error, "cure", None)}
    row |= {"model_version": record.model.version, "model_digest": record.model.digest}
    return row | {"research_use": record.research_use}


def _areas(mask: np.ndarray[Any, np.dtype[np.uint8]], pixel_mm2: float | None) -> dict[str, RegionSize]:
    counts = {name: int(np.count_nonzero(plane)) for name, plane in zip(REGIONS, mask, strict=True)}
    return {
        name: RegionSize(pixels=count, area_mm2=None if pixel_mm2 is None else count * pixel_mm2)
        for name, count in counts.items()
    }


def _volumes(mask: np.ndarray[Any, np.dtype[np.uint8]], measures: StudyMeasures | None) -> dict[str, RegionSize]:
    known: Mapping[str, Any] = measures.regions if measures else {}
    return {
        name: RegionSize(pixels=int(np.count_nonzero(volume)), volume_ml=known[name].volume_ml if known else None)
        for name, volume in zip(REGIONS, mask, strict=True)
    }


def _one_of_study(one: SliceRecord) -> SliceFigures:
    return SliceFigures(
        index=one.index,
        tumor_probability=one.tumor_probability,
        tumor_label=one.tumor_label,
        ood_score=one.ood_score,
        mean_uncertainty=one.mean_uncertainty,
        error=None if one.error is None else Failure.of(one.error),
    )
