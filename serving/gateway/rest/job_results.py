"""A job's results as files: the answer, the mask on the scan, and the DICOM segmentation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.codecs.dicom_seg import write_segmentation
from serving.gateway.rest.asking import Clock
from serving.gateway.rest.job_records import MASK, RESULT, SEG, Job
from serving.gateway.rest.schemas_studies import StudyAnswer
from serving.gateway.rest.study_fields import study_fields
from serving.gateway.rest.study_run import StudyResult
from slicewise.inference.study_mask import write_study_mask
from slicewise.studies.made_grid import grid_of

log = logging.getLogger(__name__)

NOT_DICOM = "the input was not DICOM, and a DICOM segmentation has to refer to DICOM images"
UNFIT_DICOM = "the DICOM images lack attributes that a segmentation has to repeat, such as FrameOfReferenceUID"
NOTHING_TRAINED = "the model was taught no region"


def write_results(job: Job, result: StudyResult, clock: Clock) -> None:
    """Write all that can be made of a job's result.

    Args:
        job: Gets ``no_seg`` where there is no segmentation.
        result: The prediction.
        clock: Gets the phase.
    """
    write_study_mask(result.prediction, grid_of(result.study), job.outputs / MASK)
    job.no_seg = _write_seg(job, result)
    fields = study_fields(result, job.parameters.mask_format)
    clock.mark("encode")
    frame = {"request_id": job.request_id, "timings_ms": clock.milliseconds(result.prediction.timings_ms)}
    answer = StudyAnswer.model_validate(fields | frame)
    (job.outputs / RESULT).write_text(answer.model_dump_json(), encoding="utf-8")


def _write_seg(job: Job, result: StudyResult) -> str:
    """Why there is no segmentation; empty where it was written."""
    study, prediction = result.study, result.prediction
    if study.record.layout != "dicom" or study.grid is None:
        return NOT_DICOM
    if prediction.mask is None or not prediction.trained_regions:
        return NOTHING_TRAINED
    series: Mapping[str, Sequence[Path]] = {
        name: [job.inputs / file for file in files] for name, files in study.record.images.items()
    }
    model = result.model.model_dump()
    try:
        content = write_segmentation(prediction.mask, series, study.grid, prediction.trained_regions, model)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        # The rest of the result is good: files from the field lack attributes in ways that nobody can list.
        log.warning("no DICOM segmentation: %s: %s", type(error).__name__, error)
        return UNFIT_DICOM
    (job.outputs / SEG).write_bytes(content)
    return ""
