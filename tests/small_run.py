"""A small phantom data set, made once per test session and shared by the folders of the library's tests."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slicewise.config import (
    CalibrateConfig,
    DownloadConfig,
    EvaluateConfig,
    GateConfig,
    ModelConfig,
    PhantomConfig,
    PreprocessConfig,
    SliceConfig,
    SplitConfig,
    StageName,
    TrainConfig,
    validate,
)
from slicewise.evaluation.calibrate import calibrate_stage
from slicewise.evaluation.evaluate import EvaluateJob, evaluate_stage
from slicewise.inference.bundle import Bundle
from slicewise.inference.package import make_bundle
from slicewise.slices.build import build_store
from slicewise.slices.split import Split, split_store
from slicewise.slices.store import SliceStore
from slicewise.studies.acquire import acquire
from slicewise.studies.dataset import Dataset
from slicewise.training.stage import StageJob, train_stage

SEED = 3
SIZE = 48
MODEL = ModelConfig(preset="small", dropout=0.2)
PREPROCESS = PreprocessConfig(slice=SliceConfig(size=SIZE), min_tumour_pixels=5, train_slices=8, workers=1)
SPLIT = SplitConfig(fractions=(0.5, 0.25, 0.25))
PHANTOM = PhantomConfig(n_studies=8, shape=(48, 48, 16), spacing_mm=(4.0, 4.0, 9.0))


def train_config(**changes: Any) -> TrainConfig:
    """A training section of one short epoch per stage."""
    stages = {
        "seg_warmup": {"epochs": 1, "tasks": ["segment"], "monitor": "dice"},
        "cls_head": {"epochs": 1, "encoder_lr_factor": 0.0, "tasks": ["classify"], "monitor": "auc"},
        "joint": {"epochs": 1, "tasks": ["segment", "classify"], "monitor": "combined"},
    }
    return validate(TrainConfig, {"batch_size": 8, **stages, **changes})


@dataclass(frozen=True)
class SmallData:
    """A phantom data set, its store and its split."""

    dataset: Dataset
    store: SliceStore
    split: Split
    folder: Path

    def job(self, stage: StageName, checkpoints: Path, init: Path | None = None, **train: Any) -> StageJob:
        """A training stage on this data."""
        split, store = self.folder / "split", self.store.folder
        return StageJob(stage, MODEL, train_config(**train), SEED, store, split, init, checkpoints)


@dataclass(frozen=True)
class SmallRun:
    """What a whole run on the small data set leaves."""

    data: SmallData
    weights: Path
    calibration: Path
    evaluation: Path
    metrics: dict[str, Any]
    bundle: Bundle


@functools.cache
def _keep() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="slicewise-tests-")


@functools.cache
def make_small_data() -> SmallData:
    """8 studies of 48×48×16 voxels, two of them healthy."""
    torch.set_num_threads(1)  # such small networks are slower on several
    folder = Path(_keep().name)
    dataset = acquire(["phantom"], folder / "dataset", DownloadConfig(phantom=PHANTOM), SEED)
    store = build_store(folder / "dataset", folder / "store", PREPROCESS, SEED)
    return SmallData(dataset, store, split_store(folder / "store", folder / "split", SPLIT, SEED), folder)


@functools.cache
def make_small_run() -> SmallRun:
    """All three stages, calibration, evaluation and the bundle."""
    data = make_small_data()
    folder, store, split = data.folder, data.store.folder, data.folder / "split"
    init = None
    for stage in ("seg_warmup", "cls_head", "joint"):
        longer = {"joint": {"epochs": 4, "lr": 3e-3, "tasks": ["segment", "classify"], "monitor": "combined"}}
        train_stage(data.job(stage, folder / stage / "checkpoints", init, **longer), folder / stage)
        init = folder / stage
    weights = folder / "joint"
    calibrate_stage(store, split, weights, MODEL, CalibrateConfig(), folder / "calibration")
    job = EvaluateJob(
        store=store,
        split=split,
        weights=weights,
        calibration=folder / "calibration",
        model=MODEL,
        evaluate=EvaluateConfig(bootstrap=100),
        gate=GateConfig(min_roc_auc=0.1, min_dice_wt=1.0, max_ece=0.9),
    )
    metrics = evaluate_stage(job, folder / "evaluation")
    bundle = make_bundle(
        store, weights, folder / "calibration", folder / "evaluation", MODEL, "small", folder / "bundle"
    )
    return SmallRun(data, weights, folder / "calibration", folder / "evaluation", metrics, bundle)
