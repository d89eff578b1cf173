"""Training one arm of a study on one fold, and judging it once on that fold's test patients."""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from folds import fold_split, only_sources
from recipes import ARMS, FOLDS, MODEL, SEED
from withheld import SHOWN, Shown

from slicewise.config import MODALITIES, REGIONS, DownloadConfig, ModelConfig, PreprocessConfig
from slicewise.evaluation.outputs import load_network
from slicewise.files import read_json, write_json
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.build import build_store
from slicewise.slices.split import Split
from slicewise.slices.store import SliceStore
from slicewise.studies.acquire import acquire
from slicewise.training.stage import StageJob, train_stage
from slicewise.training.validate import overlap

logger = logging.getLogger("studies")
SUBSETS = [names for count in range(1, len(MODALITIES) + 1) for names in itertools.combinations(MODALITIES, count)]


def make_store(sources: Sequence[str], work: Path, preprocess: PreprocessConfig) -> SliceStore:
    """The slice store of some sources; made once."""
    folder = work / "store"
    if not (folder / "store.json").exists():
        acquire(list(sources), work / "dataset", DownloadConfig(), SEED)
        build_store(work / "dataset", folder, preprocess, SEED)
    return SliceStore(folder)


def trained(description: str | None) -> tuple[argparse.Namespace, SliceStore]:
    """The command line of a script that only judges what ``run_arms.py`` has trained, and the store beside it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(FOLDS)))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options, SliceStore(options.work / "store")


def train_stages(
    work: Path, store: SliceStore, split: Path, arm: dict[str, Any], init: Path | None, model: ModelConfig = MODEL
) -> tuple[Path, float]:
    """Train an arm's stages; returns the last one's folder and the seconds of all."""
    seconds = 0.0
    for stage in arm.get("stages", ("seg_warmup", "cls_head", "joint")):
        out = work / stage
        if not (out / "stage.json").exists():
            job = StageJob(
                stage, model, arm["train"], arm.get("seed", SEED), store.folder, split, init, work / f"{stage}-c"
            )
            train_stage(job, out)
        seconds += read_json(out / "stage.json")["seconds"]
        init = out
    assert init is not None
    return init, seconds


def judge(network: MultiTaskUNet, data: Shown) -> dict[str, Any]:
    """Pixel counts per study and, with the class known, every slice's tumour logit."""
    counts = np.zeros((len(data.keys), len(REGIONS), 3))
    slice_dice: list[list[float]] = [[] for _ in data.keys]
    logits: list[tuple[int, float, float]] = []
    start = time.perf_counter()
    for batch in data.batches(range(len(data)), 32):
        with torch.inference_mode():
            out = network(batch.image)
        head = batch.image.any(dim=1, keepdim=True)
        assert out.regions is not None
        pixels = overlap((out.regions > 0) & head, batch.regions > 0)
        np.add.at(counts, batch.study, pixels)
        for at, study in enumerate(batch.study):
            both, predicted, truth = pixels[at, 0]
            if truth:
                slice_dice[study].append(2 * both / (predicted + truth))
            if batch.tumour_known[at]:
                logits.append((int(study), float(out.tumour[at]), float(batch.tumour[at])))
    return {
        "studies": list(data.keys),
        "counts": counts.tolist(),
        "slice_dice": slice_dice,
        "logits": logits,
        "ms_per_slice": 1e3 * (time.perf_counter() - start) / len(data),
    }


def run_fold(work: Path, store: SliceStore, name: str, fold: int, *, subsets: bool = False) -> dict[str, Any]:
    """One arm on one fold: its result, from the disk where it has been made before."""
    result = work / "results" / f"{name}-{fold}.json"
    if result.exists():
        return dict(read_json(result))
    arm, home = ARMS[name], work / f"fold-{fold}"
    split: Split = fold_split(store, fold, FOLDS, SEED, home / "split")
    mine = only_sources(split, store, arm["sources"], home / name / "split")
    init = home / arm["init"][0] / arm["init"][1] if "init" in arm else None
    weights, seconds = train_stages(home / name, store, mine, arm, init)
    stage = read_json(weights / "stage.json")
    network = load_network(store, weights, MODEL)

    found = {
        "arm": name,
        "fold": fold,
        "seed": SEED,
        "train_patients": len(only(split, store, arm["sources"], "train")),
        "val_patients": len(only(split, store, arm["sources"], "val")),
        "split": {side: list(split.side(side)) for side in ("train", "val", "test")},
        "seconds": seconds,
        "precision": stage["precision"],
        "chosen": stage["history"][stage["best_epoch"] - 1],
        **{part: judge(network, Shown(store, split.test, shown)) for part, shown in SHOWN.items()},
    }
    if subsets:
        brats = only(split, store, ("brats",), "test")
        found["subsets"] = {"+".join(names): judge(network, Shown(store, brats, names)) for names in SUBSETS}
    if (home / name / "seg_warmup").exists():
        found["warmup"] = judge(load_network(store, home / name / "seg_warmup", MODEL), Shown(store, split.test))
    write_json(result, found)
    logger.info("%s fold %d: %.0f s", name, fold, seconds)
    return found


def only(split: Split, store: SliceStore, sources: tuple[str, ...], side: Any) -> list[str]:
    """The studies of a side that are of some sources."""
    return [key for key in split.side(side) if store.studies[key].source in sources]
