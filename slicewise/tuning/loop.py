"""The search's loop: one trial after the other, each told to the study before the next is drawn."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from slicewise.config.tune import check_space
from slicewise.errors import ConfigError, TrainingError
from slicewise.progress import Update
from slicewise.training.stage import WEIGHTS
from slicewise.tuning.attempts import (
    PLACE,
    REASON,
    SECONDS,
    begin,
    begin_with,
    best_of,
    ended,
    take_up,
)
from slicewise.tuning.job import TuneJob
from slicewise.tuning.results import STATES, TRIALS, trial_folder, write_results
from slicewise.tuning.study import as_values, distributions, make_pruner, open_study, start_of
from slicewise.tuning.trial import CHECKPOINTS, OutOfTime, TrialRun, saved_epochs, score_of

logger = logging.getLogger(__name__)


class Search:
    """A search that is open; its folder is locked."""

    def __init__(self, job: TuneJob, out: Path, update: Update | None) -> None:
        minutes = job.tune.timeout_minutes
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.job, self.out, self.update = job, out, update
        self.base = job.base()
        check_space(job.tune, self.base)
        self.space = distributions(job.tune, self.base)
        self.study = open_study(out, job.identity(self.base))
        self.study.pruner = make_pruner(job.tune)

    def run(self) -> dict[str, Any]:
        """Go on until so many trials have ended or the time is over; returns the content of ``trials.json``."""
        begin_with(self.study, start_of(self.job.tune, self.base), self.space)
        take_up(self.study, self.space)
        self._sweep()
        result = write_results(self.study, self.job, self.base, self.out)
        while result["ended"] < self.job.tune.trials and not self._is_late():
            try:
                self._one()
            except OutOfTime:
                logger.info("time is over; the trial under way goes on with the next call")
                take_up(self.study, self.space)
            self._sweep()
            result = write_results(self.study, self.job, self.base, self.out)
        if result["best"] is None:
            raise self._nothing_found(result)
        return result

    def _one(self) -> None:
        """Train one trial and tell the study how it ended."""
        trial = begin(self.study, self.job.tune, self.base.seed, self.space)
        place = trial.user_attrs[PLACE]
        tell = self._teller(place)
        run = TrialRun(self.job, trial, trial_folder(self.out, place), self.deadline, tell)
        state, score, reason = self._outcome(run)
        epochs = [figures for stage in self.job.tune.stages for figures in saved_epochs(run.folder / stage)]
        trial.set_user_attr(SECONDS, round(sum(figures["seconds"] for figures in epochs), 2))
        if reason:
            trial.set_user_attr(REASON, reason)
        self.study.tell(trial, score, state=state)
        words = f"{STATES[state]} {reason}" if score is None else f"{STATES[state]} {score:.4f}"
        logger.info("trial %04d %s", place, words)
        tell(words)

    def _outcome(self, run: TrialRun) -> tuple[TrialState, float | None, str]:
        """How a trial ends, its score, and why it failed."""
        try:
            record = run.train(run.configure(as_values(self.job.tune, run.trial.params)))
        except optuna.TrialPruned:
            return TrialState.PRUNED, None, ""
        except (ConfigError, TrainingError, torch.OutOfMemoryError) as error:
            return TrialState.FAIL, None, str(error)
        return TrialState.COMPLETE, score_of(record), ""

    def _teller(self, place: int) -> Callable[[str], None]:
        def tell(text: str) -> None:
            if self.update:
                best = best_of(self.study)
                so_far = "" if best is None else f", best {best.value:.3f}"
                self.update(len(ended(self.study)), self.job.tune.trials, f"trial {place:04d} {text}{so_far}")

        return tell

    def _is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _sweep(self) -> None:
        """Delete the checkpoints of trials that are over and, but for the best one's, the weights."""
        best = best_of(self.study)
        for trial in ended(self.study):
            for stage in self.job.tune.stages:
                folder = trial_folder(self.out, trial.user_attrs[PLACE]) / stage
                shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
                if self.job.tune.keep == "best" and (best is None or trial.number != best.number):
                    (folder / WEIGHTS).unlink(missing_ok=True)

    def _nothing_found(self, result: dict[str, Any]) -> TrainingError:
        reasons = [row["reason"] for row in result["trials"] if row["state"] == "failed"]
        if not reasons:
            return TrainingError(
                f"no trial of {self.out} has finished yet", "call again to go on, or give --timeout-minutes more"
            )
        return TrainingError(
            f"all of {len(reasons)} trials failed, the last with: {reasons[-1]}", f"see {self.out / TRIALS}"
        )
