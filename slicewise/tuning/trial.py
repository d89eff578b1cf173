"""One trial: its stages trained in its own folder, its epochs reported, its score."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml
from safetensors import SafetensorError, safe_open

from slicewise.config import Config, StageName, load_config
from slicewise.errors import TrainingError
from slicewise.files import write_text
from slicewise.training.checkpoint import LAST
from slicewise.training.stage import StageJob, monitor_score, train_stage
from slicewise.tuning.job import TuneJob

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
FIGURES = {"dice": ("val_dice",), "auc": ("val_auc",), "combined": ("val_dice", "val_auc")}


class OutOfTime(Exception):
    """The call's time is over; the trial under way goes on with the next call."""


@dataclass
class TrialRun:
    """One trial under way.

    Attributes:
        job: The search.
        trial: Optuna's side of the trial.
        folder: Its own folder; what an interrupted attempt left there is used.
        deadline: When to stop, on ``time.monotonic``'s clock; None: never.
        tell: Called with a line about each epoch.
    """

    job: TuneJob
    trial: optuna.Trial
    folder: Path
    deadline: float | None
    tell: Callable[[str], None]
    _undecided: bool = field(default=False, init=False)

    def configure(self, values: dict[str, Any]) -> Config:
        """Write the trial's configuration file and read it as any run would.

        Raises:
            ConfigError: Values that are right by themselves do not go together.
        """
        path = self.folder / CONFIG
        write_text(path, yaml.safe_dump(self.job.layers(values), sort_keys=False))
        return load_config(self.job.mode, path)

    def train(self, config: Config) -> dict[str, Any]:
        """Train all stages; returns the record of the last.

        Raises:
            TrainingError: A stage cannot be trained with these settings.
            TrialPruned: The pruner gave the trial up.
            OutOfTime: The deadline passed.
        """
        record: dict[str, Any] = {}
        init: Path | None = None
        for stage in self.job.tune.stages:
            record = self._train_stage(config, stage, init)
            init = self.folder / stage
        return record

    def _train_stage(self, config: Config, stage: StageName, init: Path | None) -> dict[str, Any]:
        out = self.folder / stage
        watch = functools.partial(self._on_epoch, stage, config.train.stage(stage).monitor)
        # Epochs of an interrupted attempt are not trained again, but the pruner has to know them.
        for figures in saved_epochs(out):
            watch(figures)
        job = StageJob(
            stage=stage,
            model=config.model,
            train=config.train,
            seed=config.seed,
            store=self.job.store,
            split=self.job.split,
            init=init,
            checkpoints=out / CHECKPOINTS,
        )
        return train_stage(job, out, self._on_step, watch=watch)

    def _on_epoch(self, stage: StageName, monitor: str, figures: dict[str, Any]) -> None:
        score = monitor_score(monitor, figures)
        self.tell(f"{stage} epoch {figures['epoch']}: {monitor} {score:.3f}")
        if stage == self.job.tune.stages[-1]:
            self.trial.report(score, figures["epoch"])
            self._undecided = True

    def _on_step(self, done: int, total: int, text: str) -> None:
        # Decided when the next epoch has begun, so that no trial is given up that was at its end anyway.
        if self._undecided and self.trial.should_prune():
            raise optuna.TrialPruned
        self._undecided = False
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OutOfTime


def saved_epochs(stage: Path) -> list[dict[str, Any]]:
    """The figures of the epochs that a stage's last checkpoint holds; none where there is no checkpoint."""
    path = stage / CHECKPOINTS / LAST
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="pt") as handle:
            history: list[dict[str, Any]] = json.loads(handle.metadata()["progress"])["history"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} is damaged ({error})", f"delete {path}") from error
    return history


def score_of(record: dict[str, Any]) -> float:
    """The best validation figure of a trial's last stage.

    Raises:
        TrainingError: The data give no such figure, so that trials cannot be compared.
    """
    cure = "set another train.*.monitor, other 'stages', or a split whose validation side has it"
    if record["skipped"]:
        raise TrainingError(f"{record['stage']} has nothing to judge: {record['skipped']}", cure)
    if record["monitor"] not in FIGURES:
        # The space itself may rescale the loss.
        raise TrainingError(f"trials cannot be compared by the monitor {record['monitor']!r}", cure)
    figures = record["history"][record["best_epoch"] - 1]
    if all(figures[name] is None for name in FIGURES[record["monitor"]]):
        # Training falls back to the validation loss, which the space itself may rescale.
        raise TrainingError(f"the validation side has no {record['monitor']} to judge {record['stage']} by", cure)
    return float(record["best_score"])
