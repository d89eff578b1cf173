"""Tumour or no tumour on single images: repeated grouped cross-validation, from scratch against two transfers.

    python benchmarks/studies/kaggle.py --images FOLDER --work FOLDER --warmup FOLDER [--imagenet FILE]

``--warmup`` is the folder of a trained ``seg_warmup`` (of ``run_arms.py``), ``--imagenet`` a file that
``imagenet_encoder.py`` has made. Duplicates and near-duplicates of an image stay on one side. What is there already
is kept; the table is written into ``benchmarks/results/studies/kaggle.json``.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from arms import make_store, train_stages
from figures import classification_figures, save_table, youden_cut
from folds import fold_split
from recipes import BOTH, MODEL, PREPROCESS, SIZE, recipe

from slicewise.config import ModelConfig
from slicewise.evaluation.outputs import load_network
from slicewise.files import read_json, write_json
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import SliceData
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore

FOLDS = 5
JOINT: dict[str, Any] = {"epochs": 40, "lr": 1e-3, "encoder_lr_factor": 1.0, "tasks": BOTH, "monitor": "last"}
SAMPLING = {"balance_classes": True, "epoch_slices": 0}
AUGMENT = {"preset": "moderate", "modality_dropout": 0.0}


# First the head on the frozen encoder, then both, the encoder slowly: fine-tuning from a random head would spoil what
# the encoder knows (Kumar et al., "Fine-tuning can distort pretrained features", ICLR 2022).
PROBE: dict[str, Any] = {"epochs": 10, "lr": 2e-3, "encoder_lr_factor": 0.0, "tasks": BOTH, "monitor": "last"}


def classify(joint: dict[str, Any], probe: bool = False) -> dict[str, Any]:
    changes: dict[str, Any] = {"joint": {**JOINT, **joint, "patience": 40}, "cls_head": {**PROBE, "patience": 40}}
    train = recipe(tasks=["classify"], sampling=SAMPLING, augment=AUGMENT, **changes)
    return {"stages": ("cls_head", "joint") if probe else ("joint",), "train": train}


def arms(warmup: Path | None, imagenet: Path | None) -> dict[str, tuple[dict[str, Any], ModelConfig, Path | None]]:
    """Name → recipe, network and where its weights come from."""
    dropout = MODEL.model_copy(update={"dropout": 0.3})
    found = {
        "scratch": (classify({}), dropout, None),
    }
    if warmup is not None:
        found["segmentation"] = (classify({"encoder_lr_factor": 0.3}), dropout, warmup)
    if imagenet is not None:
        lite = ModelConfig(architecture="efficientnet_lite", dropout=0.3, encoder_weights=imagenet)
        found["imagenet"] = (classify({"epochs": 20, "encoder_lr_factor": 0.3}), lite, None)
        found["imagenet_probe"] = (classify({"epochs": 5, "lr": 5e-4, "encoder_lr_factor": 0.2}, True), lite, None)
    return found


def run_fold(
    store: SliceStore, home: Path, split_folder: Path, arm: dict[str, Any], model: ModelConfig, init: Path | None
) -> dict[str, Any]:
    """Train on one fold and judge its test images once."""
    result = home / "result.json"
    if result.exists():
        return dict(read_json(result))
    weights, seconds = train_stages(home, store, split_folder, arm, init, model)
    network = load_network(store, weights, model)
    split = load_split(split_folder)
    found = {"rows": judge(store, network, split.test), "seconds": seconds}
    rows = judge(store, network, split.val)
    found["cut"] = youden_cut(*(np.array([row[name] for row in rows]) for name in ("logit", "tumour")))
    write_json(result, found)
    return found


def judge(store: SliceStore, network: MultiTaskUNet, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Logit, mean logit with the mirror image, and truth of each image."""
    data = SliceData(store, keys, selected_only=False)
    rows = []
    for batch in data.batches(range(len(data)), 32):
        with torch.inference_mode():
            logits = network(batch.image, segment=False).tumour
            both = (logits + network(batch.image.flip(3), segment=False).tumour) / 2
        values = (logits.tolist(), both.tolist(), batch.tumour.tolist())
        for study, logit, mean, truth in zip(batch.study, *values, strict=True):
            rows.append({"image": keys[study], "logit": logit, "mirrored": mean, "tumour": truth})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--warmup", type=Path)
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--arms", nargs="*")
    parser.add_argument("--name", help="of the table; else kaggle, or kaggle_SIZE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(options.threads)
    slices = PREPROCESS.slice.model_copy(update={"size": options.size})
    store = make_store([options.images], options.work, PREPROCESS.model_copy(update={"slice": slices}))
    chosen = arms(options.warmup, options.imagenet)
    table: dict[str, Any] = {name: {"repeats": [], "seconds": 0.0} for name in options.arms or chosen}
    for repeat in range(options.repeats):
        for name, row in table.items():
            figures, seconds = run_repeat(store, options.work / f"repeat-{repeat}", name, chosen[name], repeat)
            row["repeats"].append(figures)
            row["seconds"] = round(row["seconds"] + seconds)
            print(name, repeat, {key: round(figure["value"], 3) for key, figure in figures.items()}, flush=True)
    name = options.name or ("kaggle" if options.size == SIZE else f"kaggle_{options.size}")
    save_table(name, {"folds": FOLDS, "images": len(store.studies), "size": options.size, "arms": table})


def run_repeat(
    store: SliceStore, home: Path, name: str, chosen: tuple[dict[str, Any], ModelConfig, Path | None], repeat: int
) -> tuple[dict[str, Any], float]:
    """One arm over all folds; figures of the test images of all of them, pooled."""
    arm, model, init = chosen
    rows, groups, cuts, seconds = [], [], [], 0.0
    for fold in range(FOLDS):
        place = home / f"fold-{fold}"
        split = fold_split(store, fold, FOLDS, repeat, place / "split")
        group_of = {key: group for group, keys in split.groups.items() for key in keys}
        found = run_fold(store, place / name, place / "split", {**arm, "seed": repeat}, model, init)
        rows += found["rows"]
        cuts += [found["cut"]] * len(found["rows"])
        seconds += found["seconds"]
        groups += [group_of[row["image"]] for row in found["rows"]]
    truth = np.array([row["tumour"] for row in rows])
    logits, mirrored = (np.array([row[name] for row in rows]) for name in ("logit", "mirrored"))
    figures = classification_figures(logits, truth, groups)
    figures |= {f"{key}_mirrored": value for key, value in classification_figures(mirrored, truth, groups).items()}
    cut = classification_figures(logits, truth, groups, np.array(cuts))
    return figures | {f"{key}_at_validation_cut": cut[key] for key in cut if key != "auc"}, seconds


if __name__ == "__main__":
    main()
