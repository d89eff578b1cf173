"""When a stage saves itself, and where it goes on."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

from slicewise.config import TrainConfig
from slicewise.training.checkpoint import (
    BEST,
    LAST,
    Learner,
    Progress,
    clear_leftovers,
    keep_epochs,
    load_checkpoint,
    save_checkpoint,
)
from slicewise.training.ranks import Ranks


class Keeper:
    """A stage's progress and its checkpoints.

    Args:
        folder: Where checkpoints lie.
        train: The section ``train``.
        learner: What is saved.
        state: The progress of a stage that has not begun.
        ranks: The processes; the leading one saves, all of them go on from what it saved.
    """

    def __init__(
        self, folder: Path, train: TrainConfig, learner: Learner, state: Progress, ranks: Ranks | None = None
    ) -> None:
        self.state = state
        self._ranks = ranks or Ranks()
        self._folder = folder
        self._train = train
        self._save = functools.partial(save_checkpoint, folder, learner=learner)
        self._load = functools.partial(load_checkpoint, folder, LAST, learner)
        self._saved_at = time.perf_counter()
        self._cost = 0.0

    def resume(self) -> Progress:
        """Go back to the last checkpoint, if there is one.

        Raises:
            TrainingError: It is damaged or belongs to another configuration or data set.
        """
        if self._ranks.leads:
            clear_leftovers(self._folder)
        self._ranks.wait()
        self.state = self._load(self.state.fingerprint) or self.state
        self._saved_at = time.perf_counter()
        return self.state

    def end_step(self) -> None:
        """Save ``last`` after every ``checkpoint_steps``, unless that would take too large a share of the time."""
        every, share = self._train.checkpoint_steps, self._train.checkpoint_share
        if not self._ranks.leads or not every or self.state.step % every:
            return
        if time.perf_counter() - self._saved_at >= self._cost * (1 / share - 1):
            self._save_last()

    def end_epoch(self, score: float, figures: dict[str, Any]) -> None:
        """Judge an epoch, then save ``best`` before ``last``: a kill between them only repeats the epoch's end."""
        state = self.state
        state.history.append(figures)
        state.epoch += 1
        state.step, state.loss_sum, state.seconds = 0, 0.0, 0.0
        better = self._is_better(score, figures)
        if better:
            state.best_score, state.best_epoch = score, state.epoch
        if not self._ranks.leads:
            return
        if better:
            self._save(BEST, state=state)
        keep_epochs(self._folder, state.epoch, self._train.keep_last_n, functools.partial(self._save, state=state))
        self._save_last()

    def _is_better(self, score: float, figures: dict[str, Any]) -> bool:
        """Whether an epoch beats the best so far.

        Of equal ones that with the least validation loss is kept: a small validation split has few values of the AUC,
        and the first epoch to reach 1 has often hardly learnt yet.
        """
        state = self.state
        if score != state.best_score:
            return score > state.best_score
        return bool(figures["val_loss"] < state.history[state.best_epoch - 1]["val_loss"])

    def _save_last(self) -> None:
        start = time.perf_counter()
        self._save(LAST, state=self.state)
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - start
