"""The keys of ``train`` that say how weights are changed, and how often that is saved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from slicewise.config.base import Count, Section, Share

NotAll = Annotated[float, Field(ge=0.0, lt=1.0)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class OptimiseConfig(Section):
    """Optimiser, learning rate over time, accumulation and averaging.

    Attributes:
        optimiser: ``adamw`` decays weights apart from the gradient; ``adam`` and ``sgd`` add the decay to it.
        momentum: Of ``sgd``.
        nesterov: Of ``sgd``; needs momentum.
        weight_decay: Of all three.
        schedule: ``cosine`` falls to a hundredth; ``step`` and ``plateau`` multiply by ``decay_factor``, every
            ``decay_every`` epochs or after ``plateau_patience`` epochs without a better figure.
        warmup_share: The share of a stage's optimiser steps in which the rate rises from 0, in all schedules.
        decay_every: Epochs.
        decay_factor: What the rate is multiplied by.
        plateau_patience: Epochs.
        accumulate: Batches whose gradients make one optimiser step.
        ema_decay: Of the running mean of the weights that is validated and handed on; 0 is off.
        grad_clip: The largest global norm of a gradient.
    """

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: NotAll = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    warmup_share: Share = 0.1
    decay_every: Count = 10
    decay_factor: Fraction = 0.1
    plateau_patience: Count = 3
    accumulate: Count = 1
    ema_decay: NotAll = 0.0
    grad_clip: Annotated[float, Field(gt=0.0)] = 1.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> OptimiseConfig:
        if self.nesterov and (self.optimiser != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimiser sgd with a momentum above 0")
        return self


class CheckpointConfig(Section):
    """When a stage saves how far it is; decides nothing about what it learns.

    Attributes:
        checkpoint_steps: A checkpoint after so many optimiser steps of an epoch, too; 0 saves at epochs' ends only.
        checkpoint_share: Checkpoints within epochs take at most this share of the time; more of them are left out.
        keep_last_n: Above 1, so many of the last epochs' checkpoints are kept, as ``epoch-0007.safetensors``.
    """

    checkpoint_steps: Annotated[int, Field(ge=0)] = 100
    checkpoint_share: Fraction = 0.02
    keep_last_n: Count = 1
