"""The training loop.

Everything random comes from generators seeded by run, stage, epoch and batch, so that it is the same whichever
thread makes a batch and wherever a stage goes on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from slicewise.config import StageConfig
from slicewise.errors import TrainingError
from slicewise.model.device import place_image, place_network
from slicewise.model.losses import Losses
from slicewise.model.network import MultiTaskUNet, build_network, count_parameters
from slicewise.progress import Update
from slicewise.provenance import provenance
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.loading import ready_ahead
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.checkpoint import BEST, Learner, Progress, strip
from slicewise.training.forward import make_forward
from slicewise.training.job import StageJob, nothing_to_learn
from slicewise.training.keeper import Keeper
from slicewise.training.optimise import make_average, make_optimiser, rate_factor
from slicewise.training.plan import Plan
from slicewise.training.precision import Precision
from slicewise.training.ranks import Ranks
from slicewise.training.record import WEIGHTS, load_weights, monitor_score, read_record, write_result
from slicewise.training.sampling import Sampler
from slicewise.training.tracking import Tracker, open_trackers, step_losses
from slicewise.training.validate import validate_stage

logger = logging.getLogger(__name__)
# Called after every epoch, when its checkpoint is saved; what it raises ends the stage.
Watch = Callable[[dict[str, Any]], None]


class Loop:
    """One stage's network, data and optimiser."""

    def __init__(self, job: StageJob, ranks: Ranks) -> None:
        self.job, self.ranks = job, ranks
        self.config: StageConfig = job.train.stage(job.stage)
        self.store = SliceStore(job.store)
        split = load_split(job.split)
        self.data = SliceData(self.store, split.train, selected_only=True)
        self.val = SliceData(self.store, split.val, selected_only=True)
        self.skipped = nothing_to_learn(self.data, self.val, self.config.tasks)
        self.sampler = Sampler(self.data, job.train.sampling)
        self.plan = Plan(self.sampler.slices, job.train.batch_size, job.train.accumulate, ranks.rank, ranks.world)
        self.epochs = max(self.config.epochs, math.ceil(self.config.min_steps / max(1, self.plan.steps)))
        self.losses = Losses.build(job.train.loss, self.data.tumour())
        self.precision = Precision(job.train.precision, ranks.device)
        self.before: dict[str, Any] | None = None if job.init is None else read_record(job.init)
        self.network = self._network()
        sections = {"model": job.model.model_dump(mode="json"), "train": job.train.model_dump(mode="json")}
        self.origin = provenance(sections, job.seed, self.store.index.data_digest)
        self.optimiser = make_optimiser(self.network, self.config, job.train)
        self.average = make_average(self.network, job.train.ema_decay)
        self.forward = self.network if self.skipped else make_forward(self.network, self.config, job.train, ranks)
        fingerprint = job.fingerprint(self.store, self.data, self.val, self.before, ranks.world)
        learner = Learner(self.network, self.optimiser, self.precision.scaler, self.average)
        self.keeper = Keeper(job.checkpoints, job.train, learner, Progress(fingerprint), ranks)

    def _network(self) -> MultiTaskUNet:
        torch.manual_seed(self.job.seed)
        channels = len(self.store.index.preprocessing.modalities)
        network = build_network(channels, self.job.model, transfer=self.job.init is None)
        if self.job.init is not None:
            network.load_state_dict(load_weights(self.job.init / WEIGHTS))
        return place_network(network, self.ranks.device, self.job.train.memory_format)

    @property
    def judged(self) -> MultiTaskUNet:
        """The network that is validated and handed on: the running mean where there is one."""
        return self.network if self.average is None else cast("MultiTaskUNet", self.average.module)

    def run(self, out: Path, update: Update | None, watch: Watch | None = None) -> dict[str, Any]:
        """Train, keep the best epoch, and write the result."""
        if self.skipped:
            logger.warning("%s is skipped: %s", self.job.stage, self.skipped)
            return self._write(out, 0.0)
        start = time.perf_counter()
        state = self.keeper.resume()
        if state.epoch or state.step:
            place = (self.job.stage, state.epoch, self.epochs, state.step)
            logger.info("%s goes on after epoch %d of %d, step %d of the next", *place)
        with self._tracked() as tracker:
            while state.epoch < self.epochs and state.epoch - state.best_epoch < self.config.patience:
                self._epoch(update, tracker)
                if watch:
                    watch(state.history[-1])
        self.ranks.wait()
        prefix = "model." if self.average is None else "average.module."
        self.network.load_state_dict(strip(load_weights(self.job.checkpoints / BEST), prefix))
        return self._write(out, time.perf_counter() - start)

    def _tracked(self) -> AbstractContextManager[Tracker | None]:
        """The trackers, opened where the stage goes on; the leading process has them alone."""
        if not self.ranks.leads:
            return contextlib.nullcontext()
        state, job = self.keeper.state, self.job
        steps = state.epoch * self.plan.steps + state.step
        return open_trackers(job.train.track, job.curves, job.stage, self.origin, steps, state.epoch)

    def _epoch(self, update: Update | None, tracker: Tracker | None) -> None:
        """One pass over the training slices, validation, and the checkpoint."""
        state, start = self.keeper.state, time.perf_counter()
        before = state.seconds
        waited = self._pass(update, tracker)
        trained = time.perf_counter()
        figures = validate_stage(self.judged, self.val, self.job.train, self.config.tasks, self.losses, self.ranks)
        seconds = {
            "seconds": before + time.perf_counter() - start,
            "val_seconds": time.perf_counter() - trained,
            "data_wait": waited,
        }
        # A stage that goes on between an epoch's last step and its end has set no rate yet.
        self._set_rates(self.plan.steps - 1)
        loss = state.loss_sum / self.plan.slices
        figures = {"epoch": state.epoch + 1, "train_loss": loss, **figures, "lr": self._rate(), **seconds}
        if tracker:
            tracker.epoch(state.epoch + 1, {key: figures[key] for key in figures if key != "epoch"})
        self.keeper.end_epoch(monitor_score(self.config.monitor, figures), figures)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if isinstance(value, float))
        logger.info("%s epoch %d/%d: %s", self.job.stage, state.epoch, self.epochs, shown)

    def _pass(self, update: Update | None, tracker: Tracker | None) -> float:
        """Learn from what is left of the epoch's slices; returns the share of time waiting for data."""
        state, start = self.keeper.state, time.perf_counter()
        epoch, before = state.epoch + 1, state.seconds
        order = self.sampler.order(self.job.place_seed(epoch))
        self._train_mode()
        first, seen = state.step * self.job.train.accumulate, state.loss_sum
        jobs = [functools.partial(self._batch, order, epoch, number) for number in range(first, self.plan.batches)]
        with ready_ahead(jobs) as batches:
            for number, batch in enumerate(batches, start=first):
                norm = self._learn(number, batch)
                if norm is None:
                    continue
                state.step += 1
                state.seconds = before + time.perf_counter() - start
                done = state.epoch * self.plan.steps + state.step
                if tracker:
                    loss, rate = (state.loss_sum - seen) / self.plan.step_slices(number), self._rate()
                    tracker.step(done, {"loss": loss, "lr": rate, "gradient_norm": float(norm)})
                seen = state.loss_sum
                self.keeper.end_step()
                if update and self.ranks.leads:
                    update(done, self.epochs * self.plan.steps, f"epoch {epoch}/{self.epochs}")
        return batches.waited / (time.perf_counter() - start)

    def _batch(self, order: list[int], epoch: int, number: int) -> Batch:
        """Read and change one training batch; depends on nothing that training changes."""
        batch = self.data.fetch(self.plan.rows(order, number)).to(self.ranks.device)
        generator = torch.Generator().manual_seed(self._seed(epoch, number))
        return augment(batch, self.job.train.augment, generator)

    def _seed(self, epoch: int, number: int) -> int:
        """Of one batch; each process draws for itself."""
        rank = (self.ranks.rank,) if self.ranks.world > 1 else ()
        return self.job.place_seed(epoch, number, *rank)

    def _train_mode(self) -> None:
        """Frozen parts stay in evaluation mode, so that their dropout does not disturb what is learnt."""
        self.forward.train()
        self.network.encoder.train(self.config.encoder_lr_factor > 0)

    def _learn(self, number: int, batch: Batch) -> torch.Tensor | None:
        """Add one batch's gradients and, at the end of its group, take an optimiser step; returns their norm then."""
        state, steps = self.keeper.state, self.plan.is_step(number)
        torch.manual_seed(self._seed(state.epoch + 1, number))  # of dropout
        # Gradients of processes are exchanged once per optimiser step.
        alone = not steps and isinstance(self.forward, DistributedDataParallel)
        with self.forward.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            loss = self._loss(batch)
            added = float(loss.detach()) * len(batch.image)
            # All processes see the sum, so that all stop where one fails.
            state.loss_sum += self._finite(float(self.ranks.total(np.array([added]))[0]))
            self.precision.backward(loss * self.plan.share(number, len(batch.image)))
        if not steps:
            return None
        self._set_rates(state.step)
        norm = self.precision.step(self.optimiser, self.network, self.job.train.grad_clip)
        if self.average is not None:
            self.average.update_parameters(self.network)
        return norm

    def _finite(self, value: float) -> float:
        if not math.isfinite(value):
            place = f"epoch {self.keeper.state.epoch + 1}"
            raise TrainingError(f"{self.job.stage}: the loss is {value} in {place}", "lower train.*.lr")
        return value

    def _set_rates(self, step_of_epoch: int) -> None:
        state = self.keeper.state
        step, total = state.epoch * self.plan.steps + step_of_epoch, self.epochs * self.plan.steps
        scores = [monitor_score(self.config.monitor, figures) for figures in state.history]
        factor = rate_factor(self.job.train, step, total, state.epoch + 1, scores)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor

    def _rate(self) -> float:
        """The learning rate of what learns fastest."""
        return max(float(group["lr"]) for group in self.optimiser.param_groups)

    def _loss(self, batch: Batch) -> torch.Tensor:
        device, train = self.ranks.device, self.job.train
        image = place_image(batch.image, device, train.memory_format)
        with self.precision.autocast():
            tumour, *maps = self.forward(image)
        loss = torch.zeros((), device=device)
        if maps:
            loss = loss + train.lambda_seg * self.losses.scales(
                maps, batch.regions.to(device), batch.known.to(device)
            )
        if "classify" in self.config.tasks:
            truth, known = batch.tumour.to(device), batch.tumour_known.to(device)
            loss = loss + train.lambda_cls * self.losses.classification(tumour.float(), truth, known)
        return loss

    def _write(self, out: Path, seconds: float) -> dict[str, Any]:
        state = self.keeper.state
        record = {
            "stage": self.job.stage,
            "fingerprint": state.fingerprint,
            "skipped": self.skipped,
            "parameters": count_parameters(self.network),
            "train_slices": len(self.data),
            "epoch_slices": self.plan.slices,
            "trained_regions": self.data.known_regions() if "segment" in self.job.train.tasks else [],
            "trained_tasks": list(self.job.train.tasks),
            "val_slices": len(self.val),
            "device": str(self.ranks.device),
            "processes": self.ranks.world,
            "precision": self.precision.name,
            "monitor": self.config.monitor,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score if state.best_epoch and self.config.monitor != "last" else None,
            "seconds": round(seconds, 2),
            "provenance": self.origin,
            "history": state.history,
            "step_losses": step_losses(self.job.curves) if self.ranks.leads else [],
            "before": [] if self.before is None else [*self.before["before"], {**self.before, "before": []}],
        }
        if self.ranks.leads:
            write_result(out, self.network, record)
        self.ranks.wait()
        return record
