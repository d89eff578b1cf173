"""The ``evaluate`` stage: the test split, judged once."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, EvaluateConfig, GateConfig, ModelConfig
from slicewise.evaluation.assemble import assemble
from slicewise.evaluation.calibrate import Fitted, read_calibration
from slicewise.evaluation.collector import StudyCollector
from slicewise.evaluation.data_section import save_thumbnails
from slicewise.evaluation.gate import check_gate, judge
from slicewise.evaluation.outputs import Outputs, collect_outputs, group_names
from slicewise.evaluation.pictured import pick_studies
from slicewise.evaluation.report import write_report
from slicewise.evaluation.study_judge import Judged, StudyJudge
from slicewise.evaluation.study_pictures import FOLDER as PICTURES
from slicewise.evaluation.study_volume import StudyOutputs
from slicewise.files import read_result, write_json
from slicewise.inference.calibration import Calibration
from slicewise.inference.ensemble import checkpoint_members
from slicewise.inference.restore import trained_mask
from slicewise.inference.sampling import Member, SamplingPlan
from slicewise.inference.uncertainty import Uncertainty
from slicewise.model.device import choose_device
from slicewise.progress import Update
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.stage import RECORD

logger = logging.getLogger(__name__)
FILE = "metrics.json"


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


@dataclass
class _Judging:
    """Takes the studies as the network finishes them.

    Attributes:
        seconds: Spent on figures and pictures, without the network.
    """

    judge: StudyJudge
    judged: list[Judged] = field(default_factory=list)
    measures: list[Uncertainty] = field(default_factory=list)
    seconds: float = 0.0

    def __call__(self, outputs: StudyOutputs) -> None:
        start = time.perf_counter()
        self.judged.append(self.judge.judge(outputs))
        if outputs.tumour_uncertainty is not None:
            self.measures.append(outputs.tumour_uncertainty)
        self.seconds += time.perf_counter() - start

    def tumour_uncertainty(self, rows: NDArray[np.intp]) -> Uncertainty | None:
        """Of the slices ``rows`` of the side."""
        return Uncertainty.join(self.measures).take(rows) if self.measures else None


def evaluate_stage(job: EvaluateJob, out: Path, update: Update | None = None) -> dict[str, Any]:
    """Judge the model on all slices of the test split.

    Writes ``metrics.json``, ``report.html`` and the folder ``pictures`` into ``out``.

    Returns:
        The content of ``metrics.json``.

    Raises:
        StoreError: The store or the split cannot be read.
        TrainingError: The network's outputs are not finite.
        ConfigError: The gate's champion cannot be read, or a condition names a figure that does not exist.
    """
    start = time.perf_counter()
    check_gate(job.gate)
    shutil.rmtree(out / PICTURES, ignore_errors=True)
    fitted = read_calibration(job.calibration)
    outputs, judging = _judge_side(job, fitted, out, update)
    found = assemble(job, fitted, outputs, judging.judged, judging.tumour_uncertainty(outputs.rows))
    _drop_pictures(found["studies"], job.evaluate.pictured_studies, out)
    write_json(out / FILE, found | {"verdict": judge(found, job.gate)})
    # As every other reader finds it: JSON knows no tuples.
    metrics: dict[str, Any] = read_result(out / FILE, "evaluate")
    save_thumbnails(SliceStore(job.store), metrics["data"], out)
    write_report(metrics, out)
    logger.info(
        "%d studies in %.1f s, of these %.1f s for their figures and pictures",
        len(judging.judged),
        time.perf_counter() - start,
        judging.seconds,
    )
    logger.info("%s", metrics["verdict"]["summary"])
    return metrics


def _judge_side(job: EvaluateJob, fitted: Fitted, out: Path, update: Update | None) -> tuple[Outputs, _Judging]:
    judging = _Judging(
        StudyJudge(
            store=SliceStore(job.store),
            groups=group_names(job.split),
            calibration=fitted.calibration,
            postprocess=fitted.postprocess,
            trained=trained_mask(read_result(job.weights / RECORD, "train")["trained_regions"]),
            config=job.evaluate,
            pictures=out,
        )
    )
    keys = load_split(job.split).test
    plan, others = _sampling(job, fitted.calibration)
    collector = StudyCollector(keys, fitted.calibration, judging, plan, others, job.evaluate.explain_method)
    outputs = collect_outputs(job.store, job.split, job.weights, job.model, "test", visit=collector, update=update)
    collector.finish()
    return outputs, judging


def _sampling(job: EvaluateJob, calibration: Calibration) -> tuple[SamplingPlan | None, list[Member]]:
    """How the uncertainty is sampled, and the other networks of the ensemble."""
    config = job.evaluate
    if not config.mc_samples:
        return None, []
    plan = SamplingPlan(config.mc_samples, config.mirror, tuple(range(len(REGIONS))))
    if not config.ensemble:
        return plan, []
    channels = len(SliceStore(job.store).index.preprocessing.modalities)
    folders = [job.weights, *config.ensemble]
    return plan, checkpoint_members(folders, channels, job.model, calibration, choose_device("auto"))[1:]


def _drop_pictures(records: list[dict[str, Any]], count: int, out: Path) -> None:
    """Keep the pictures of the studies that are shown."""
    shown = set(pick_studies(records, count))
    for record in records:
        if record["study"] not in shown:
            shutil.rmtree(out / PICTURES / record["study"], ignore_errors=True)
            record["pictures"] = []
