"""The body of component ``train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from components.outputs import log_metrics
from components.runtime import run_id, stage
from components.train.trainjob import train_on_nodes
from components.train.trainjob_settings import TrainJobSettings
from slicewise.config import STAGES, ModelConfig, StageName, TrainConfig, validate
from slicewise.errors import ConfigError
from slicewise.progress import progress
from slicewise.training.launch import launch_stage
from slicewise.training.stage import StageJob

FIGURES = ("val_loss", "val_dice", "val_auc")


def run(
    name: str,
    store: Any,
    assignment: Any,
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    seed: int,
    run_folder: str,
    weights: Any,
    metrics: Any,
    checkpoints: str,
    trainjob: Mapping[str, Any],
    init: Any,
) -> None:
    """Train, and describe the weights."""
    with stage(f"train-{name}", run_folder) as record, progress(name) as update:
        if name not in STAGES:
            raise ConfigError(f"unknown training stage {name!r}", f"use one of {', '.join(STAGES)}")
        # Two runs on one volume must not go on from each other's checkpoints.
        home = Path(checkpoints) / run_id() if checkpoints else Path(run_folder or weights.path)
        job = StageJob(
            stage=cast("StageName", name),
            model=validate(ModelConfig, model),
            train=validate(TrainConfig, train),
            seed=seed,
            store=Path(store.path),
            split=Path(assignment.path),
            init=Path(init.path) if init else None,
            checkpoints=home / "checkpoints" / name,
            tracking=home / "tracking" / name,
        )
        if trainjob:
            result = train_on_nodes(job, home, validate(TrainJobSettings, trainjob), Path(weights.path), update)
        else:
            result = launch_stage(job, Path(weights.path), update)
        best = result["history"][result["best_epoch"] - 1] if result["history"] else {}
        figures = {key: best[key] for key in FIGURES if best.get(key) is not None}
        record.figures = {"skipped": result["skipped"]} if result["skipped"] else {"best epoch": result["best_epoch"]}
        record.figures |= figures
        record.outputs = {"weights": weights.path}
        log_metrics(metrics, figures | {"epochs": len(result["history"]), "best_epoch": result["best_epoch"]})
