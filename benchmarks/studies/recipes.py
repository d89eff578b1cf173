"""The recipes of the studies: chosen on validation patients only, for two CPU cores."""

from __future__ import annotations

from typing import Any

from slicewise.config import ModelConfig, PreprocessConfig, TrainConfig, validate

SEED = 0
FOLDS = 4
# Of each study so many slices are candidates; an epoch draws from them.
SLICES = 40
SIZE = 112
MODEL = ModelConfig(preset="small", dropout=0.1)
PREPROCESS = validate(PreprocessConfig, {"slice": {"size": SIZE}, "train_slices": SLICES})

BOTH = ["segment", "classify"]
COMMON: dict[str, Any] = {
    "batch_size": 8,
    "ema_decay": 0.998,
    "weight_decay": 1e-3,
    "augment": {"preset": "moderate"},
    "sampling": {"balance_classes": True, "epoch_slices": 1600},
}
STAGES: dict[str, Any] = {
    "seg_warmup": {"epochs": 16, "lr": 3e-3, "tasks": ["segment"], "monitor": "last", "patience": 16},
    "cls_head": {
        "epochs": 2,
        "lr": 2e-3,
        "encoder_lr_factor": 0.0,
        "tasks": ["classify"],
        "monitor": "last",
        "patience": 2,
    },
    "joint": {
        "epochs": 5,
        "lr": 1e-3,
        "encoder_lr_factor": 0.5,
        "tasks": BOTH,
        "monitor": "last",
        "patience": 5,
    },
}


def recipe(**changes: Any) -> TrainConfig:
    """The section ``train``; a changed stage or subsection keeps what the change does not name."""
    merged = {**COMMON, **STAGES}
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return validate(TrainConfig, merged)


# What each arm trains on, and how.
ARMS: dict[str, dict[str, Any]] = {
    # LGG and BraTS together, all three stages: the model of the project.
    "both": {"sources": ("lgg", "brats"), "train": recipe()},
    # The same recipe with the patients of one source; an epoch has its part of the slices.
    "brats": {"sources": ("brats",), "train": recipe(sampling={"epoch_slices": 800})},
    "lgg": {"sources": ("lgg",), "train": recipe(sampling={"epoch_slices": 1040})},
    # The joint stage at a third of its rate, from the same weights: does it keep the warm-up's Dice?
    "gentle": {
        "sources": ("lgg", "brats"),
        "stages": ("joint",),
        "init": ("both", "cls_head"),
        "train": recipe(joint={"lr": 3e-4}),
    },
    # One task off. The segmentation network goes on from the same warm-up, as that learns nothing else.
    "segment": {
        "sources": ("lgg", "brats"),
        "stages": ("joint",),
        "init": ("both", "seg_warmup"),
        "train": recipe(tasks=["segment"]),
    },
    "classify": {
        "sources": ("lgg", "brats"),
        "stages": ("joint",),
        "train": recipe(
            tasks=["classify"], joint={"epochs": 21, "lr": 2e-3, "encoder_lr_factor": 1.0, "patience": 21}
        ),
    },
}
