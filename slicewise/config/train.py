"""The section ``train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slicewise.config.augment import AugmentConfig
from slicewise.config.base import Count, Positive, Section, Share, StageName
from slicewise.config.loss import LossConfig
from slicewise.config.optimise import CheckpointConfig, OptimiseConfig


class StageConfig(Section):
    """One training stage.

    Attributes:
        epochs: At most so many passes.
        min_steps: A small set gets more epochs, until there are so many optimiser steps.
        lr: Peak learning rate of the decoder and the head.
        encoder_lr_factor: The encoder's learning rate over ``lr``; 0 freezes it.
        tasks: Which losses take part.
        monitor: The validation figure whose best epoch is kept.
        patience: Stop after so many epochs without a better figure.
    """

    epochs: Count
    min_steps: Annotated[int, Field(ge=0)] = 0
    lr: Positive = 1e-3
    encoder_lr_factor: Share = 1.0
    tasks: tuple[Literal["segment", "classify"], ...]
    monitor: Literal["dice", "auc", "combined"]
    patience: Count = 10


class TrainConfig(OptimiseConfig, CheckpointConfig):
    """What the three stages share, and the stages."""

    batch_size: Count = 16
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    lambda_seg: Annotated[float, Field(ge=0)] = 1.0
    lambda_cls: Annotated[float, Field(ge=0)] = 0.5
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    seg_warmup: StageConfig
    cls_head: StageConfig
    joint: StageConfig

    def stage(self, name: StageName) -> StageConfig:
        """The configuration of one stage."""
        return {"seg_warmup": self.seg_warmup, "cls_head": self.cls_head, "joint": self.joint}[name]
