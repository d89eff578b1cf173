"""Optimisers, learning rates over time, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from slicewise.config import StageConfig, TrainConfig
from slicewise.model.network import MultiTaskUNet


def make_optimiser(network: MultiTaskUNet, stage: StageConfig, train: TrainConfig) -> torch.optim.Optimizer:
    """Encoder, decoder and head with their own learning rates; what a stage freezes gets no gradient."""
    groups: list[tuple[nn.Module, float]] = [
        (network.encoder, stage.lr * stage.encoder_lr_factor),
        (network.decoder, stage.lr if "segment" in stage.tasks else 0.0),
        (network.head, stage.lr if "classify" in stage.tasks else 0.0),
    ]
    for module, rate in groups:
        module.requires_grad_(rate > 0)
    trained = [{"params": list(module.parameters()), "lr": rate, "peak": rate} for module, rate in groups if rate]
    if not trained:  # the stage has nothing to do: torch wants parameters all the same
        trained = [{"params": list(network.parameters()), "lr": 0.0, "peak": 0.0}]
    if train.optimiser == "adamw":
        return torch.optim.AdamW(trained, weight_decay=train.weight_decay)
    if train.optimiser == "adam":
        return torch.optim.Adam(trained, weight_decay=train.weight_decay)
    return torch.optim.SGD(
        trained, lr=stage.lr, momentum=train.momentum, nesterov=train.nesterov, weight_decay=train.weight_decay
    )


def rate_factor(train: TrainConfig, step: int, total: int, epoch: int, scores: Sequence[float]) -> float:
    """The learning rate over its peak: a linear warm-up, then the schedule.

    It depends on the place in the stage and on the epochs' figures only, so that a resumed stage needs no state
    of its schedule. Cosine: Loshchilov and Hutter, "SGDR", ICLR 2017, from 1 to a hundredth.

    Args:
        train: The section ``train``.
        step: Optimiser steps finished in this stage.
        total: Optimiser steps of the stage.
        epoch: The epoch under way, counted from 1.
        scores: The monitored figure of each finished epoch.
    """
    warm = max(1, round(total * train.warmup_share))
    if step < warm:
        return (step + 1) / warm
    if train.schedule == "cosine":
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    if train.schedule == "step":
        return float(train.decay_factor ** ((epoch - 1) // train.decay_every))
    if train.schedule == "plateau":
        return float(train.decay_factor ** plateaus(scores, train.plateau_patience))
    return 1.0


def plateaus(scores: Sequence[float], patience: int) -> int:
    """How often ``patience`` epochs in a row brought no better figure; counting starts anew after each time."""
    best, waited, found = float("-inf"), 0, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == patience:
            waited, found = 0, found + 1
    return found


def make_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of a network's weights, or None for a decay of 0.

    The decay of update ``n`` is at most ``(1 + n) / (10 + n)``, so that a short training is not averaged with the
    random weights of its start.
    """
    if not decay:
        return None

    @torch.no_grad()
    def mean(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        done = int(updates)
        weight = 1 - min(decay, (1 + done) / (10 + done))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, weight)

    average = AveragedModel(network, multi_avg_fn=mean)
    return average.requires_grad_(False)
