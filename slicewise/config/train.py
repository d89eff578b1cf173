"""The section ``train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from slicewise.config.augment import AugmentConfig
from slicewise.config.base import Count, Positive, Section, Share, StageName
from slicewise.config.loss import LossConfig
from slicewise.config.optimise import CheckpointConfig, OptimiseConfig
from slicewise.config.track import TrackConfig

Task = Literal["segment", "classify"]


class StageConfig(Section):
    """One training stage.

    Attributes:
        epochs: At most so many passes.
        min_steps: A small set gets more epochs, until there are so many optimiser steps.
        lr: Peak learning rate of the decoder and the head.
        encoder_lr_factor: The encoder's learning rate over ``lr``; 0 freezes it.
        tasks: Which losses take part.
        monitor: The validation figure whose best epoch is kept: Dice, AUC, their mean or the least loss. ``last``
            keeps the last epoch, as nnU-Net does: few validation patients choose more by chance than by merit.
        patience: Stop after so many epochs without a better figure.
    """

    epochs: Count
    min_steps: Annotated[int, Field(ge=0)] = 0
    lr: Positive = 1e-3
    encoder_lr_factor: Share = 1.0
    tasks: tuple[Task, ...]
    monitor: Literal["dice", "auc", "combined", "loss", "last"]
    patience: Count = 10


class SamplingConfig(Section):
    """Which slices an epoch is made of.

    Attributes:
        balance_classes: Slices with and without tumour come equally often, within each source that has both.
        source_ratio: Source → its part of an epoch, by ratio; empty leaves every source its share of the slices.
            Names all sources of the training side, or none.
        epoch_slices: Slices of an epoch; 0 is as many as there are.
    """

    balance_classes: bool = False
    source_ratio: dict[str, Positive] = Field(default_factory=dict)
    epoch_slices: Annotated[int, Field(ge=0)] = 0


class TrainConfig(OptimiseConfig, CheckpointConfig):
    """What the three stages share, and the stages.

    Attributes:
        batch_size: Slices in a batch, of each process where there are several.
        processes: Of one machine; 0 takes one for each GPU, and one without a GPU.
        precision: ``auto`` takes bf16 or fp16 on CUDA, bf16 on CPUs with AMX or AVX-512 BF16,
            fp32 on others.
        memory_format: ``auto`` takes channels_last on CUDA only.
        compile: The backend of ``torch.compile``; None runs eagerly.
        tasks: What the network learns; a stage's tasks that are not among them are off.
        lambda_seg: Weight of the segmentation loss.
        lambda_cls: Weight of the classification loss.
    """

    batch_size: Count = 16
    processes: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: Literal["inductor", "aot_eager", "eager"] | None = None
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)] = ("segment", "classify")
    lambda_seg: Annotated[float, Field(ge=0)] = 1.0
    lambda_cls: Annotated[float, Field(ge=0)] = 0.5
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()
    track: TrackConfig = TrackConfig()
    seg_warmup: StageConfig
    cls_head: StageConfig
    joint: StageConfig

    def stage(self, name: StageName) -> StageConfig:
        """The configuration of one stage, with the tasks that are on."""
        found: StageConfig = {"seg_warmup": self.seg_warmup, "cls_head": self.cls_head, "joint": self.joint}[name]
        return found.model_copy(update={"tasks": tuple(task for task in found.tasks if task in self.tasks)})
