"""The content of ``metrics.json``, from what was found of each study and slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicewise import RESEARCH_USE, __version__
from slicewise.evaluation.calibrate import Fitted
from slicewise.evaluation.calibration_report import calibration_section
from slicewise.evaluation.classification import classification_report
from slicewise.evaluation.data_section import data_figures
from slicewise.evaluation.decision_report import decision_section
from slicewise.evaluation.explanation import explanation_section
from slicewise.evaluation.explanation_sanity import sanity_check
from slicewise.evaluation.ood import read_ood
from slicewise.evaluation.ood_report import ood_section, score_test, study_scores
from slicewise.evaluation.outputs import Outputs, load_network
from slicewise.evaluation.segmentation import segmentation_report
from slicewise.evaluation.study_judge import Judged
from slicewise.evaluation.subgroups import subgroups
from slicewise.evaluation.uncertainty_quality import SliceScores, uncertainty_section, without_curves
from slicewise.files import read_result
from slicewise.inference.study_records import patient_probability
from slicewise.inference.uncertainty import Uncertainty
from slicewise.slices.split import SIDES, load_split
from slicewise.slices.store import SliceStore
from slicewise.training.stage import RECORD

if TYPE_CHECKING:
    from slicewise.evaluation.evaluate import EvaluateJob

FORMAT, VERSION = "slicewise-metrics", 2
SANITY_SLICES = 8
Section = dict[str, Any]
Vector = NDArray[np.float32]


def assemble(
    job: EvaluateJob,
    fitted: Fitted,
    outputs: Outputs,
    judged: Sequence[Judged],
    uncertainty: Uncertainty | None,
) -> Section:
    """Everything but the verdict.

    Args:
        job: What was evaluated.
        fitted: The calibration and what was found on validation.
        outputs: Of the test side.
        judged: Its studies.
        uncertainty: Of the slices in ``outputs.rows``; None when nothing was sampled.
    """
    store, split = SliceStore(job.store), load_split(job.split)
    outputs.slices.require_finite("the test split's slices")
    probability = fitted.calibration.tumour.apply(outputs.logits)
    said = probability >= fitted.calibration.threshold.value
    scores = score_test(job.store, job.split, job.weights, job.model, job.calibration)
    ood = study_scores(scores)
    records = [_with_uncertainty(study) | {"ood_score": ood.get(study.record["study"])} for study in judged]
    return {
        "format": FORMAT,
        "version": VERSION,
        "research_use": RESEARCH_USE,
        "slicewise_version": __version__,
        "synthetic": any(study.synthetic for study in store.studies.values()),
        "sources": list(store.index.sources),
        "data_digest": store.index.data_digest,
        "split": {side: len(split.side(side)) for side in SIDES} | {"groups": len(split.groups)},
        "audit": split.audit,
        "data": data_figures(store, job.split),
        "failures": [failure.model_dump() for failure in store.index.failures],
        "training": read_result(job.weights / RECORD, "train"),
        "calibration": fitted.calibration.model_dump(mode="json"),
        "postprocess": {"chosen": fitted.postprocess.model_dump(mode="json"), "tried": fitted.tried},
        **_probabilities(job, outputs, probability, fitted),
        "segmentation": segmentation_report(records, job.evaluate),
        "studies": records,
        "subgroups": subgroups(records, job.evaluate),
        "uncertainty": _uncertainty(job, outputs, said, judged, uncertainty),
        "explanation": _explanation(job, outputs, judged),
        "ood": ood_section(scores, read_ood(job.calibration), job.evaluate),
    }


def _probabilities(job: EvaluateJob, outputs: Outputs, probability: Vector, fitted: Fitted) -> Section:
    """Calibration, classification and decisions of the slices whose class is known."""
    config, calibration = job.evaluate, fitted.calibration
    threshold = calibration.threshold.value
    return {
        "calibration_figures": calibration_section(fitted.validation, outputs, calibration, config),
        "classification": {
            "slice": classification_report(probability, outputs.truth, outputs.groups, threshold, config),
            "patient": classification_report(*patient_level(probability, outputs), threshold, config),
        },
        "decision": decision_section(probability, outputs.truth, outputs.groups, calibration, config),
    }


def patient_level(probability: Vector, outputs: Outputs) -> tuple[Vector, Vector, list[str]]:
    """A patient's probability is that of the most suspicious slice; the truth is whether any slice has tumour."""
    names = sorted(set(outputs.groups))
    groups = np.asarray(outputs.groups)
    highest = np.array([patient_probability(probability[groups == name]) for name in names], dtype=np.float32)
    truth = np.array([outputs.truth[groups == name].max() for name in names], dtype=np.float32)
    return highest, truth, names


def _with_uncertainty(study: Judged) -> Section:
    return study.record | {"uncertainty": None if study.uncertainty is None else without_curves(study.uncertainty)}


def _uncertainty(
    job: EvaluateJob,
    outputs: Outputs,
    said: NDArray[np.bool_],
    judged: Sequence[Judged],
    uncertainty: Uncertainty | None,
) -> Section | None:
    """How well the uncertainty tells errors; ``said`` is the label given to each slice."""
    if uncertainty is None:
        return None
    told = [study for study in judged if study.uncertainty is not None]
    slices = SliceScores(uncertainty, said != (outputs.truth > 0), outputs.groups)
    config = job.evaluate
    how = {"mc_samples": config.mc_samples, "mirror": config.mirror, "networks": 1 + len(config.ensemble)}
    return how | uncertainty_section(
        [study.uncertainty or {} for study in told],
        [study.record["patient"] for study in told],
        slices if len(outputs.rows) else None,
        job.evaluate,
    )


def _explanation(job: EvaluateJob, outputs: Outputs, judged: Sequence[Judged]) -> Section:
    """The evidence against the masks, and whether the maps hang on what was learned at all."""
    records = [(record, study.record["patient"]) for study in judged for record in study.explained]
    method = job.evaluate.explain_method
    section = explanation_section([record for record, _ in records], [group for _, group in records], job.evaluate)
    section["method"] = method
    tumour = outputs.rows[outputs.truth > 0]
    if not len(tumour):
        return section | {"sanity": None}
    chosen = tumour[np.linspace(0, len(tumour) - 1, min(SANITY_SLICES, len(tumour))).round().astype(int)]
    network = load_network(SliceStore(job.store), job.weights, job.model)
    return section | {"sanity": sanity_check(network, outputs.data.fetch(chosen.tolist()).image, method)}
