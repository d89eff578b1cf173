"""A study's prediction as the fields of an answer. Slow for large masks: call it beside the event loop."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from serving.answers import class_fields
from serving.codecs.masks import npy_base64
from serving.gateway.rest.parameters import StudyMaskFormat
from serving.gateway.rest.study_run import StudyResult
from serving.recommendation import recommend
from serving.status import error_fields
from slicewise.config import REGIONS
from slicewise.inference.study import SliceRecord, StudyPrediction
from slicewise.inference.study_mask import write_study_mask
from slicewise.studies.made_grid import grid_of
from slicewise.studies.study import Study

# A study is called foreign when most of its slices are.
FOREIGN_SHARE = 0.5


def study_fields(result: StudyResult, form: StudyMaskFormat) -> dict[str, Any]:
    """All but the frame of the answer."""
    study, prediction = result.study, result.prediction
    fields = class_fields(prediction.tumor_probability, prediction.threshold, prediction.decision)
    failed = [record.index for record in prediction.failures]
    foreign = None if prediction.ood_share is None else prediction.ood_share > FOREIGN_SHARE
    measures = prediction.measures
    return fields | {
        "model": result.model,
        "modalities": list(prediction.modalities),
        "shape": list(study.channels[0].shape),
        "spacing_mm": list(study.spacing_mm) if study.spacing_known else None,
        "n_slices": len(prediction.slices),
        "n_analyzed": sum(record.tumor_probability is not None for record in prediction.slices),
        "failed_slices": failed,
        "slices": [_slice(record) for record in prediction.slices],
        "affected_slices": _affected(prediction),
        "volumes_ml": {name: measures.regions[name].volume_ml if measures else None for name in REGIONS},
        "measures": measures,
        "trained_regions": list(prediction.trained_regions),
        "ood_share": prediction.ood_share,
        "mask_format": form,
        "mask": _mask(study, prediction, form),
        "warnings": list(study.warnings),
        "recommendation": recommend(prediction.decision, foreign),
    }


def _slice(record: SliceRecord) -> dict[str, Any]:
    return {
        "index": record.index,
        "tumor_probability": record.tumor_probability,
        "tumor_label": record.tumor_label,
        "decision": record.decision,
        "area_mm2": None if record.area_mm2 is None else dict(record.area_mm2),
        "ood_score": record.ood_score,
        "ood_flag": record.ood_flag,
        "error": None if record.error is None else error_fields(record.error),
    }


def _affected(prediction: StudyPrediction) -> dict[str, list[int]]:
    if prediction.mask is None:
        return {name: [] for name in REGIONS}
    touched = np.asarray(prediction.mask.any(axis=(2, 3)))
    return {name: np.flatnonzero(planes).tolist() for name, planes in zip(REGIONS, touched, strict=True)}


def _mask(study: Study, prediction: StudyPrediction, form: StudyMaskFormat) -> str | None:
    if form == "none" or prediction.mask is None:
        return None
    if form in ("npy", "npy_gz"):
        return npy_base64(prediction.mask, packed=form == "npy_gz")
    with tempfile.TemporaryDirectory(prefix="slicewise-mask-") as folder:
        path = Path(folder) / "mask.nii.gz"
        write_study_mask(prediction, grid_of(study), path)
        return base64.b64encode(path.read_bytes()).decode("ascii")
