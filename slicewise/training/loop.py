"""The training loop.

Batches come from generators seeded by run, stage, epoch and step, so that they are the same whichever thread makes
them and wherever a stage goes on. Dropout draws from torch's own generator, which is seeded at an epoch's start and
saved with every checkpoint.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from pathlib import Path
from typing import Any, cast

import torch

from slicewise.config import StageConfig
from slicewise.errors import TrainingError
from slicewise.model.device import choose_device, place_image, place_network
from slicewise.model.losses import Losses
from slicewise.model.network import MultiTaskUNet, build_network, count_parameters
from slicewise.progress import Update
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.loading import ready_ahead
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.checkpoint import BEST, Learner, Progress, strip
from slicewise.training.job import StageJob, nothing_to_learn
from slicewise.training.keeper import Keeper
from slicewise.training.optimise import make_average, make_optimiser, rate_factor
from slicewise.training.precision import Precision
from slicewise.training.record import WEIGHTS, load_weights, monitor_score, read_record, write_result
from slicewise.training.validate import validate_stage

logger = logging.getLogger(__name__)


class Loop:
    """One stage's network, data and optimiser."""

    def __init__(self, job: StageJob) -> None:
        self.job = job
        self.config: StageConfig = job.train.stage(job.stage)
        self.store = SliceStore(job.store)
        split = load_split(job.split)
        self.data = SliceData(self.store, split.train, selected_only=True)
        self.val = SliceData(self.store, split.val, selected_only=True)
        self.losses = Losses.build(job.train.loss, self.data.tumour())
        self.device = choose_device()
        self.precision = Precision(job.train.precision, self.device)
        self.before: dict[str, Any] | None = None if job.init is None else read_record(job.init)
        self.network = self._network()
        self.optimiser = make_optimiser(self.network, self.config, job.train)
        self.average = make_average(self.network, job.train.ema_decay)
        self.batches = math.ceil(len(self.data) / job.train.batch_size)
        self.steps = math.ceil(self.batches / job.train.accumulate)
        self.epochs = max(self.config.epochs, math.ceil(self.config.min_steps / max(1, self.steps)))
        fingerprint = job.fingerprint(self.store, self.data, self.val, self.before)
        learner = Learner(self.network, self.optimiser, self.precision.scaler, self.average)
        self.keeper = Keeper(job.checkpoints, job.train, learner, Progress(fingerprint))

    def _network(self) -> MultiTaskUNet:
        torch.manual_seed(self.job.seed)
        channels = len(self.store.index.preprocessing.modalities)
        network = build_network(channels, self.job.model, transfer=self.job.init is None)
        if self.job.init is not None:
            network.load_state_dict(load_weights(self.job.init / WEIGHTS))
        return place_network(network, self.device)

    @property
    def judged(self) -> MultiTaskUNet:
        """The network that is validated and handed on: the running mean where there is one."""
        return self.network if self.average is None else cast("MultiTaskUNet", self.average.module)

    def run(self, out: Path, update: Update | None) -> dict[str, Any]:
        """Train, keep the best epoch, and write the result."""
        reason = nothing_to_learn(self.data, self.val, self.config.tasks)
        if reason:
            logger.warning("%s is skipped: %s", self.job.stage, reason)
            return self._write(out, reason, 0.0)
        start = time.perf_counter()
        state = self.keeper.resume()
        if state.epoch or state.step:
            place = (self.job.stage, state.epoch, self.epochs, state.step)
            logger.info("%s goes on after epoch %d of %d, step %d of the next", *place)
        while state.epoch < self.epochs and state.epoch - state.best_epoch < self.config.patience:
            self._epoch(update)
        prefix = "model." if self.average is None else "average.module."
        self.network.load_state_dict(strip(load_weights(self.job.checkpoints / BEST), prefix))
        return self._write(out, "", time.perf_counter() - start)

    def _epoch(self, update: Update | None) -> None:
        """One pass over the training slices, validation, and the checkpoint."""
        state, start = self.keeper.state, time.perf_counter()
        before = state.seconds
        waited = self._pass(update)
        weights = (self.job.train.lambda_seg, self.job.train.lambda_cls)
        size, tasks = self.job.train.batch_size, self.config.tasks
        figures = validate_stage(self.judged, self.val, size, tasks, weights, self.losses)
        loss = state.loss_sum / len(self.data)
        times = {"seconds": before + time.perf_counter() - start, "data_wait": waited}
        figures = {"epoch": state.epoch + 1, "train_loss": loss, **figures, **times}
        self.keeper.end_epoch(monitor_score(self.config.monitor, figures), figures)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if isinstance(value, float))
        logger.info("%s epoch %d/%d: %s", self.job.stage, state.epoch, self.epochs, shown)

    def _pass(self, update: Update | None) -> float:
        """Learn from what is left of the epoch's slices; returns the share of time waiting for data."""
        state, start = self.keeper.state, time.perf_counter()
        epoch, before = state.epoch + 1, state.seconds
        seed = self.job.place_seed(epoch)
        if not state.step:  # else the generator goes on from the checkpoint
            torch.manual_seed(seed)
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(seed)).tolist()
        self._train_mode()
        first = state.step * self.job.train.accumulate
        jobs = [functools.partial(self._batch, order, epoch, number) for number in range(first, self.batches)]
        with ready_ahead(jobs) as batches:
            for number, batch in enumerate(batches, start=first):
                self._learn(number, batch)
                if not self._is_step(number):
                    continue
                state.step += 1
                state.seconds = before + time.perf_counter() - start
                self.keeper.end_step()
                if update:
                    done = state.epoch * self.steps + state.step
                    update(done, self.epochs * self.steps, f"epoch {epoch}/{self.epochs}")
        return batches.waited / (time.perf_counter() - start)

    def _is_step(self, number: int) -> bool:
        """Whether the optimiser takes a step after batch ``number`` of the epoch."""
        return (number + 1) % self.job.train.accumulate == 0 or number + 1 == self.batches

    def _batch(self, order: list[int], epoch: int, number: int) -> Batch:
        """Read and change one training batch; depends on nothing that training changes."""
        size = self.job.train.batch_size
        batch = self.data.fetch(order[number * size : (number + 1) * size]).to(self.device)
        generator = torch.Generator().manual_seed(self.job.place_seed(epoch, number))
        return augment(batch, self.job.train.augment, generator)

    def _train_mode(self) -> None:
        """Frozen parts stay in evaluation mode, so that their dropout does not disturb what is learnt."""
        self.network.train()
        self.network.encoder.train(self.config.encoder_lr_factor > 0)

    def _learn(self, number: int, batch: Batch) -> None:
        """Add one batch's gradients and, at the end of its group, take an optimiser step."""
        state = self.keeper.state
        loss = self._loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            place = f"epoch {state.epoch + 1}"
            raise TrainingError(f"{self.job.stage}: the loss is {value} in {place}", "lower train.*.lr")
        state.loss_sum += value * len(batch.image)
        self.precision.backward(loss * self._share(number, len(batch.image)))
        if self._is_step(number):
            self._set_rates()
            self.precision.step(self.optimiser, self.network, self.job.train.grad_clip)
            if self.average is not None:
                self.average.update_parameters(self.network)

    def _share(self, number: int, slices: int) -> float:
        """A batch's share of the slices of its optimiser step; the epoch's last batch and group may be smaller."""
        accumulate, size = self.job.train.accumulate, self.job.train.batch_size
        first = number // accumulate * accumulate * size
        return slices / (min(first + accumulate * size, len(self.data)) - first)

    def _set_rates(self) -> None:
        state = self.keeper.state
        step, total = state.epoch * self.steps + state.step, self.epochs * self.steps
        scores = [monitor_score(self.config.monitor, figures) for figures in state.history]
        factor = rate_factor(self.job.train, step, total, state.epoch + 1, scores)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor

    def _loss(self, batch: Batch) -> torch.Tensor:
        image = place_image(batch.image, self.device)
        with self.precision.autocast():
            with torch.set_grad_enabled(self.config.encoder_lr_factor > 0):
                features = self.network.encoder(image)
            logits = self.network.from_features(features, segment="segment" in self.config.tasks)
        loss = torch.zeros((), device=self.device)
        if logits.regions is not None:
            regions, known = batch.regions.to(self.device), batch.known.to(self.device)
            segmentation = self.losses.segmentation(logits.regions.float(), regions, known)
            loss = loss + self.job.train.lambda_seg * segmentation
        if "classify" in self.config.tasks:
            truth, known = batch.tumour.to(self.device), batch.tumour_known.to(self.device)
            classification = self.losses.classification(logits.tumour.float(), truth, known)
            loss = loss + self.job.train.lambda_cls * classification
        return loss

    def _write(self, out: Path, skipped: str, seconds: float) -> dict[str, Any]:
        state = self.keeper.state
        record = {
            "stage": self.job.stage,
            "fingerprint": state.fingerprint,
            "skipped": skipped,
            "parameters": count_parameters(self.network),
            "train_slices": len(self.data),
            "trained_regions": self.data.known_regions(),
            "val_slices": len(self.val),
            "device": str(self.device),
            "precision": self.precision.name,
            "monitor": self.config.monitor,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score if state.best_epoch else None,
            "seconds": round(seconds, 2),
            "history": state.history,
            "before": [] if self.before is None else [*self.before["before"], {**self.before, "before": []}],
        }
        write_result(out, self.network, record)
        return record
