"""The ``evaluate`` stage: the test split, judged once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise import RESEARCH_USE, __version__
from slicewise.config import REGIONS, EvaluateConfig, GateConfig, ModelConfig
from slicewise.evaluation.calibrate import FILE as CALIBRATION_FILE
from slicewise.evaluation.classification import classification_report
from slicewise.evaluation.data_section import data_figures
from slicewise.evaluation.gate import judge
from slicewise.evaluation.outputs import Outputs, collect_outputs, group_names
from slicewise.evaluation.reliability import calibration_figures
from slicewise.evaluation.report import write_report
from slicewise.evaluation.segmentation import MM3_PER_ML, StudyCounts, segmentation_report, study_record
from slicewise.files import read_result, write_json
from slicewise.inference.bundle import Calibration
from slicewise.inference.predictor import sigmoid
from slicewise.progress import Update
from slicewise.slices.regions import known_mask
from slicewise.slices.split import SIDES, load_split
from slicewise.slices.store import SliceStore
from slicewise.training.stage import RECORD
from slicewise.training.validate import Inferred, overlap

logger = logging.getLogger(__name__)
FILE = "metrics.json"
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class EvaluateJob:
    """What the evaluation works on: folders of the earlier stages, and its sections of the configuration."""

    store: Path
    split: Path
    weights: Path
    calibration: Path
    model: ModelConfig
    evaluate: EvaluateConfig
    gate: GateConfig


class _Counter:
    """Adds up pixel counts and volumes per study while batches pass by."""

    def __init__(self, job: EvaluateJob, calibration: Calibration) -> None:
        self.store = SliceStore(job.store)
        self.keys = load_split(job.split).test
        self.counts = np.zeros((len(self.keys), len(REGIONS), 3))
        self.volume_mm3 = np.zeros((len(self.keys), len(REGIONS), 2))
        cut = calibration.region_threshold
        # sigmoid(z / T) >= cut is z >= T * logit(cut)
        self.cuts = np.log(cut / (1 - cut)) * np.array(
            [calibration.regions[name].temperature for name in REGIONS], dtype=np.float32
        )

    def __call__(self, out: Inferred, start: int) -> None:
        if out.regions is None:
            return
        head = (out.batch.image != 0).any(dim=1, keepdim=True)
        predicted = (out.regions.numpy() >= self.cuts[:, None, None]) & head.numpy()
        pixels = overlap(head.new_tensor(predicted), out.batch.regions > 0)
        np.add.at(self.counts, out.batch.study, pixels)
        for at, position in enumerate(out.batch.study):
            study = self.store.studies[self.keys[position]]
            area = study.slices[self._row(start + at)].pixel_mm2 * study.spacing_mm[0]
            self.volume_mm3[position] += pixels[at, :, 1:] * area

    def _row(self, index: int) -> int:
        """The slice's row in its study; batches run through the studies in order."""
        for key in self.keys:
            n = len(self.store.studies[key].slices)
            if index < n:
                return index
            index -= n
        raise IndexError(index)

    def records(self, groups: dict[str, str]) -> list[dict[str, Any]]:
        """One record per study."""
        records = []
        for position, key in enumerate(self.keys):
            study = self.store.studies[key]
            volume = self.volume_mm3[position] / MM3_PER_ML if study.spacing_known else np.full((3, 2), np.nan)
            known = known_mask(study.known_regions)
            counts = StudyCounts(key, groups[key], known, self.counts[position], volume)
            records.append({**study_record(counts), "source": study.source, "n_slices": len(study.slices)})
        return records


def evaluate_stage(job: EvaluateJob, out: Path, update: Update | None = None) -> dict[str, Any]:
    """Judge the model on all slices of the test split; write ``metrics.json`` and ``report.html`` into ``out``.

    Returns:
        The content of ``metrics.json``.

    Raises:
        StoreError: The store or the split cannot be read.
    """
    fitted = read_result(job.calibration / CALIBRATION_FILE, "calibrate")
    calibration = Calibration.model_validate(fitted["calibration"])
    counter = _Counter(job, calibration)
    outputs = collect_outputs(job.store, job.split, job.weights, job.model, "test", visit=counter, update=update)
    metrics = _assemble(job, outputs, calibration, counter.records(group_names(job.split)))
    metrics["validation"] = fitted["validation"]
    metrics["verdict"] = judge(metrics, job.gate)
    write_json(out / FILE, metrics)
    write_report(job.store, job.weights, job.model, metrics, out)
    logger.info("verdict: %s", "passed" if metrics["verdict"]["passed"] else metrics["verdict"]["reasons"])
    return metrics


def _assemble(
    job: EvaluateJob, outputs: Outputs, calibration: Calibration, records: list[dict[str, Any]]
) -> dict[str, Any]:
    store, split = SliceStore(job.store), load_split(job.split)
    probability = sigmoid(outputs.logits / calibration.tumour.temperature)
    threshold = calibration.threshold.value
    config = job.evaluate
    patient = _patient_level(probability, outputs)
    return {
        "format": "slicewise-metrics",
        "version": 1,
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
        "calibration": calibration.model_dump(mode="json"),
        "classification": {
            "slice": classification_report(probability, outputs.truth, outputs.groups, threshold, config),
            "patient": classification_report(*patient, threshold, config),
        },
        "test_calibration": {
            "before": calibration_figures(sigmoid(outputs.logits), outputs.truth, config.n_bins),
            "after": calibration_figures(probability, outputs.truth, config.n_bins),
        }
        if len(outputs.truth)
        else {},
        "segmentation": segmentation_report(records, config),
        "studies": records,
    }


def _patient_level(probability: Vector, outputs: Outputs) -> tuple[Vector, Vector, list[str]]:
    """A patient's probability is that of the most suspicious slice; the truth is whether any slice has tumour."""
    names = sorted(set(outputs.groups))
    groups = np.asarray(outputs.groups)
    highest = np.array([probability[groups == name].max() for name in names], dtype=np.float32)
    truth = np.array([outputs.truth[groups == name].max() for name in names], dtype=np.float32)
    return highest, truth, names
