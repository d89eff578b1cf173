"""The body of component ``evaluate``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.outputs import log_classification, log_metrics
from components.runtime import stage
from slicewise.config import EvaluateConfig, GateConfig, ModelConfig, validate
from slicewise.evaluation.evaluate import EvaluateJob, evaluate_stage
from slicewise.evaluation.model_card import MARKDOWN as MODEL_CARD
from slicewise.evaluation.report import FILE as REPORT
from slicewise.inference.package import key_figures
from slicewise.progress import progress


def run(
    store: Any,
    assignment: Any,
    weights: Any,
    calibration: Any,
    model: Mapping[str, Any],
    section: Mapping[str, Any],
    gate: Mapping[str, Any],
    run_folder: str,
    evaluation: Any,
    metrics: Any,
    classification: Any,
    report: Any,
    model_card: Any,
) -> None:
    """Evaluate, and fill Kubeflow's artifacts."""
    with stage("evaluate", run_folder) as record, progress("evaluate") as update:
        job = EvaluateJob(
            store=Path(store.path),
            split=Path(assignment.path),
            weights=Path(weights.path),
            calibration=Path(calibration.path),
            model=validate(ModelConfig, model),
            evaluate=validate(EvaluateConfig, section),
            gate=validate(GateConfig, gate),
        )
        found = evaluate_stage(job, Path(evaluation.path), update)
        figures = {name: figure["value"] for name, figure in key_figures(found).items()}
        shown = ("roc_auc", "sensitivity", "specificity", "dice_wt", "dice_tc", "dice_et", "ece")
        record.figures = {name: figures[name] for name in shown if figures.get(name) is not None}
        record.outputs = {"evaluation": evaluation.path}
        log_metrics(metrics, figures)
        log_classification(classification, found["classification"]["slice"])
        shutil.copyfile(Path(evaluation.path) / REPORT, report.path)
        shutil.copyfile(Path(evaluation.path) / MODEL_CARD, model_card.path)
