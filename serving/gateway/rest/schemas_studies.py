"""The answers for whole studies and for jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from serving.gateway.rest.schemas import Answer, ErrorFields, ModelFields, Record
from serving.gateway.rest.schemas_slices import ClassProbabilities
from slicewise.inference.calibration import Decision
from slicewise.inference.measures import StudyMeasures

JobState = Literal["queued", "running", "done", "failed"]


class SliceEntry(Record):
    """One slice; all null where it has no head or failed."""

    index: int = Field(description="From 0, inferior to superior for axial slices.")
    tumor_probability: float | None
    tumor_label: bool | None
    decision: Decision | None
    area_mm2: dict[str, float] | None = Field(description="By region; null where the spacing is unknown.")
    ood_score: float | None
    ood_flag: bool | None
    error: ErrorFields | None = Field(description="Why this slice alone failed.")


class StudyAnswer(Answer):
    """``POST /patient/analyze_stack`` and a job's result."""

    model: ModelFields
    prediction: str = Field(description="no tumour, or tumour: by the threshold alone.")
    predicted_label: str = Field(description="The same.")
    tumor_label: bool
    confidence: float = Field(description="Calibrated probability of the predicted label.")
    tumor_probability: float = Field(description="Calibrated, of the patient: the highest of the slices'.")
    calibrated_probabilities: ClassProbabilities
    threshold: float
    decision: Decision
    abstain: bool
    modalities: list[str] = Field(description="Those that the model was shown.")
    shape: list[int] = Field(description="Slices, rows, columns in display orientation.")
    spacing_mm: list[float] | None = Field(description="Between slices, rows, columns; null where it is unknown.")
    n_slices: int
    n_analyzed: int = Field(description="Slices with a head that did not fail.")
    failed_slices: list[int]
    slices: list[SliceEntry]
    affected_slices: dict[str, list[int]] = Field(description="By region, the planes of the mask's first axis.")
    volumes_ml: dict[str, float | None] = Field(description="By region; null where the spacing is unknown.")
    measures: StudyMeasures | None = Field(description="Diameters, side, pieces; null where the spacing is unknown.")
    trained_regions: list[str]
    ood_share: float | None = Field(description="Share of the analyzed slices that are unlike the training slices.")
    mask_format: str
    mask: str | None = Field(description="In the form of mask_format, in base64; null for none.")
    warnings: list[str] = Field(description="What was repaired or left out while reading.")
    recommendation: str = Field(description="For a researcher who reads the result; never a diagnosis.")


class Progress(Record):
    """How far a job is."""

    slices_done: int
    slices: int | None = Field(description="Null until the study has been read.")


class JobAnswer(Record):
    """``POST /predict/async`` and ``GET /jobs/{id}``."""

    job_id: str = Field(description="Not to be guessed: whoever has it has the result.")
    state: JobState
    progress: Progress
    created: datetime
    expires: datetime | None = Field(description="When the result is thrown away; null until it is there.")
    error: ErrorFields | None = Field(description="Why it failed.")
    files: dict[str, str] = Field(description="Paths of what can be fetched now: result, mask, seg.")
