"""The ``train`` stage: one loop, three stages as configuration.

Everything random in an epoch comes from generators seeded by run, stage, epoch and step, so a stage resumed after
any finished epoch goes on exactly as if it had never stopped, and a batch is the same whichever thread makes it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from slicewise.config import ModelConfig, StageConfig, StageName, TrainConfig
from slicewise.errors import TrainingError
from slicewise.files import atomic_path, read_json, sha256_json, write_json
from slicewise.model.device import choose_device, place_image, place_network
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import MultiTaskUNet, count_parameters
from slicewise.progress import Update
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.loading import ready_ahead
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.training.checkpoint import BEST, LAST, Progress, load_checkpoint, save_checkpoint, strip
from slicewise.training.precision import Precision
from slicewise.training.validate import validate_stage

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"
RECORD = "stage.json"


@dataclass(frozen=True)
class StageJob:
    """What one stage works on.

    Attributes:
        stage: Its name.
        model: The section ``model``.
        train: The section ``train``.
        seed: The run's seed.
        store: The slice store's folder.
        split: The folder of ``split.json``.
        init: The folder of the stage before, or None for random weights.
        checkpoints: Where checkpoints lie; a job that finds its own there goes on from it.
    """

    stage: StageName
    model: ModelConfig
    train: TrainConfig
    seed: int
    store: Path
    split: Path
    init: Path | None
    checkpoints: Path


def train_stage(job: StageJob, out: Path, update: Update | None = None) -> dict[str, Any]:
    """Train one stage and write ``weights.safetensors`` and ``stage.json`` into ``out``.

    Returns:
        The content of ``stage.json``.

    Raises:
        TrainingError: Nothing to learn from, a loss that is not finite, or a checkpoint of another run.
    """
    return _Loop(job).run(out, update)


class _Loop:
    """One stage's network, data and optimiser."""

    def __init__(self, job: StageJob) -> None:
        self.job = job
        self.config: StageConfig = job.train.stage(job.stage)
        self.store = SliceStore(job.store)
        split = load_split(job.split)
        self.data = SliceData(self.store, split.train, selected_only=True)
        self.val = SliceData(self.store, split.val, selected_only=True)
        self.device = choose_device()
        self.precision = Precision(job.train.precision, self.device)
        self.before: dict[str, Any] | None = None if job.init is None else _read_record(job.init)
        self.network = self._network()
        self.optimiser = self._optimiser()
        self.steps = math.ceil(len(self.data) / job.train.batch_size)
        self.epochs = max(self.config.epochs, math.ceil(self.config.min_steps / max(1, self.steps)))
        self.fingerprint = self._fingerprint()

    def _network(self) -> MultiTaskUNet:
        torch.manual_seed(self.job.seed)
        network = MultiTaskUNet(len(self.store.index.preprocessing.modalities), self.job.model)
        if self.job.init is not None:
            network.load_state_dict(load_weights(self.job.init / WEIGHTS))
        return place_network(network, self.device)

    def _optimiser(self) -> torch.optim.AdamW:
        """Encoder, decoder and head with their own learning rates; what a stage freezes gets no gradient."""
        encoder_lr = self.config.lr * self.config.encoder_lr_factor
        groups: list[tuple[nn.Module, float]] = [
            (self.network.encoder, encoder_lr),
            (self.network.decoder, self.config.lr if "segment" in self.config.tasks else 0.0),
            (self.network.head, self.config.lr if "classify" in self.config.tasks else 0.0),
        ]
        for module, rate in groups:
            module.requires_grad_(rate > 0)
        trained = [{"params": list(module.parameters()), "lr": rate, "peak": rate} for module, rate in groups if rate]
        return torch.optim.AdamW(trained, weight_decay=self.job.train.weight_decay)

    def _fingerprint(self) -> str:
        """Digest of all that decides the stage's outcome."""
        parts = (
            self.job.stage,
            self.job.seed,
            self.job.model.model_dump(mode="json"),
            self.job.train.model_dump(mode="json"),
            [
                # Classes and selection can change while the images stay the same.
                study.model_dump(include={"key", "content_xxh3", "label_xxh3", "known_regions", "slices"})
                for study in self.store.studies.values()
            ],
            [list(self.data.keys), list(self.val.keys)],
            None if self.before is None else self.before["fingerprint"],
        )
        return sha256_json(parts)

    def run(self, out: Path, update: Update | None) -> dict[str, Any]:
        """Train, keep the best epoch, and write the result."""
        reason = self._nothing_to_learn()
        if reason:
            logger.warning("%s is skipped: %s", self.job.stage, reason)
            return self._write(out, Progress(self.fingerprint), reason, 0.0)
        start = time.perf_counter()
        state = self._resume()
        while state.epoch < self.epochs and state.epoch - state.best_epoch < self.config.patience:
            self._epoch(state, update)
        self.network.load_state_dict(strip(load_weights(self.job.checkpoints / BEST), "model."))
        return self._write(out, state, "", time.perf_counter() - start)

    def _nothing_to_learn(self) -> str:
        """Why this stage has nothing to do, or an empty string.

        Raises:
            TrainingError: There is nothing to learn from for any stage.
        """
        classes = {value for value in self.data.tumour() if value is not None}
        if not len(self.data) or not len(self.val):
            raise TrainingError("the training or validation side has no slices", "give more studies")
        if not self.data.has_masks and len(classes) < 2:
            raise TrainingError(
                "nothing to learn: no study has a mask, and the slices are all of one class",
                "add a source with masks, or images of both classes",
            )
        if self.config.tasks == ("segment",) and not self.data.has_masks:
            return "no training study has a mask"
        if self.config.tasks == ("classify",) and len(classes) < 2:
            return "all training slices are of one class"
        return ""

    def _resume(self) -> Progress:
        state = load_checkpoint(self.job.checkpoints, LAST, self.network, self.optimiser, self.fingerprint)
        if state is None:
            return Progress(self.fingerprint)
        logger.info("%s goes on after epoch %d of %d", self.job.stage, state.epoch, self.epochs)
        return state

    def _epoch(self, state: Progress, update: Update | None) -> None:
        """One pass over the training slices, validation, and the checkpoint."""
        start = time.perf_counter()
        epoch = state.epoch + 1
        loss, data_wait = self._pass(epoch, update)
        weights = (self.job.train.lambda_seg, self.job.train.lambda_cls)
        figures = validate_stage(self.network, self.val, self.job.train.batch_size, self.config.tasks, weights)
        times = {"seconds": time.perf_counter() - start, "data_wait": data_wait}
        self._record(state, {"epoch": epoch, "train_loss": loss, **figures, **times})

    def _pass(self, epoch: int, update: Update | None) -> tuple[float, float]:
        """Learn from every training slice once; returns the mean loss and the share of time waiting for data."""
        start, total = time.perf_counter(), 0.0
        torch.manual_seed(self._seed(epoch))
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(self._seed(epoch))).tolist()
        self._train_mode()
        jobs = [functools.partial(self._batch, order, epoch, step) for step in range(self.steps)]
        with ready_ahead(jobs) as batches:
            for done, batch in enumerate(batches, start=(epoch - 1) * self.steps):
                self._set_rates(done, self.epochs * self.steps)
                total += self._step(batch, epoch) * len(batch.image)
                if update:
                    update(done + 1, self.epochs * self.steps, f"epoch {epoch}/{self.epochs}")
        return total / len(order), batches.waited / (time.perf_counter() - start)

    def _seed(self, *place: int) -> int:
        """A seed of this run and stage for an epoch, or for one of its steps."""
        words = "/".join(map(str, (self.job.seed, self.job.stage, *place)))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:6], "little")

    def _batch(self, order: list[int], epoch: int, step: int) -> Batch:
        """Read and change one training batch; depends on nothing that training changes."""
        size = self.job.train.batch_size
        batch = self.data.fetch(order[step * size : (step + 1) * size]).to(self.device)
        return augment(batch, self.job.train.augment, torch.Generator().manual_seed(self._seed(epoch, step)))

    def _train_mode(self) -> None:
        """Frozen parts stay in evaluation mode, so that their dropout does not disturb what is learnt."""
        self.network.train()
        self.network.encoder.train(self.config.encoder_lr_factor > 0)

    def _set_rates(self, step: int, total: int) -> None:
        """Linear warm-up, then half a cosine to a hundredth (Loshchilov and Hutter, "SGDR", ICLR 2017)."""
        warm = max(1, round(total * self.job.train.warmup_share))
        if step < warm:
            factor = (step + 1) / warm
        else:
            factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor

    def _step(self, batch: Batch, epoch: int) -> float:
        image = place_image(batch.image, self.device)
        with self.precision.autocast():
            with torch.set_grad_enabled(self.config.encoder_lr_factor > 0):
                features = self.network.encoder(image)
            logits = self.network.from_features(features, segment="segment" in self.config.tasks)
        loss = torch.zeros((), device=self.device)
        if logits.regions is not None:
            regions, known = batch.regions.to(self.device), batch.known.to(self.device)
            segmentation = segmentation_loss(logits.regions.float(), regions, known)
            loss = loss + self.job.train.lambda_seg * segmentation
        if "classify" in self.config.tasks:
            truth, known = batch.tumour.to(self.device), batch.tumour_known.to(self.device)
            loss = loss + self.job.train.lambda_cls * classification_loss(logits.tumour.float(), truth, known)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"{self.job.stage}: the loss is {value} in epoch {epoch}", "lower train.*.lr")
        self.precision.step(loss, self.optimiser, self.network, self.job.train.grad_clip)
        return value

    def _record(self, state: Progress, figures: dict[str, Any]) -> None:
        """Judge the epoch, then save ``best`` before ``last``: a kill between them only repeats the epoch."""
        score = monitor_score(self.config.monitor, figures)
        state.history.append(figures)
        state.epoch = figures["epoch"]
        if score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            save_checkpoint(self.job.checkpoints, BEST, self.network, self.optimiser, state)
        save_checkpoint(self.job.checkpoints, LAST, self.network, self.optimiser, state)
        shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if isinstance(value, float))
        logger.info("%s epoch %d/%d: %s", self.job.stage, state.epoch, self.epochs, shown)

    def _write(self, out: Path, state: Progress, skipped: str, seconds: float) -> dict[str, Any]:
        out.mkdir(parents=True, exist_ok=True)
        weights = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        with atomic_path(out / WEIGHTS) as temporary:
            save_file(weights, temporary)
        record = {
            "stage": self.job.stage,
            "fingerprint": self.fingerprint,
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
        write_json(out / RECORD, record)
        return record


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read weights.

    Raises:
        TrainingError: Missing or damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path} is missing or damaged", "delete its folder and train that stage again"
        ) from error
    return tensors


def _read_record(folder: Path) -> dict[str, Any]:
    """Read the record of the stage before.

    Raises:
        TrainingError: Missing or damaged.
    """
    try:
        record: dict[str, Any] = read_json(folder / RECORD)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} holds no trained stage", "train the stage before first") from error
    return record


def monitor_score(monitor: str, figures: dict[str, Any]) -> float:
    """The figure that decides which epoch is best; higher is better.

    Falls back to the negative validation loss where the figure is undefined, for instance the AUC of a
    validation split with one class.
    """
    dice, auc = figures["val_dice"], figures["val_auc"]
    wanted = {"dice": [dice], "auc": [auc], "combined": [dice, auc]}[monitor]
    defined = [float(value) for value in wanted if value is not None]
    return sum(defined) / len(defined) if defined else -float(figures["val_loss"])
