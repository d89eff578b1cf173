"""The body of component ``calibrate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.outputs import log_metrics
from components.runtime import stage
from slicewise.config import CalibrateConfig, ModelConfig, validate
from slicewise.evaluation.calibrate import calibrate_stage
from slicewise.progress import progress


def run(
    store: Any,
    assignment: Any,
    weights: Any,
    model: Mapping[str, Any],
    section: Mapping[str, Any],
    run_folder: str,
    calibration: Any,
    metrics: Any,
) -> None:
    """Calibrate, and describe the result."""
    with stage("calibrate", run_folder) as record, progress("calibrate") as update:
        fitted = calibrate_stage(
            Path(store.path),
            Path(assignment.path),
            Path(weights.path),
            validate(ModelConfig, model),
            validate(CalibrateConfig, section),
            Path(calibration.path),
            update,
        )
        found, validation = fitted["calibration"], fitted["validation"]
        record.figures = {
            "method": found["tumour"]["method"],
            "kept": found["tumour"]["kept"],
            "threshold": found["threshold"]["value"],
        }
        record.outputs = {"calibration": calibration.path}
        changes = {
            f"val_{key}_{when}": figures["figures"][key]["value"]
            for when, figures in validation["tumour"].items()
            for key in ("ece", "brier", "nll")
        }
        log_metrics(metrics, {"threshold": found["threshold"]["value"]} | changes)
