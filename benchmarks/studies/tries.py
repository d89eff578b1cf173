"""Other recipes for segmentation, on the folds of the studies: what validation patients say of each.

    python benchmarks/studies/tries.py --lgg LGG --brats BRATS --work WORK [--folds 0 1] [--test] TRY...

Trains ``seg_warmup`` alone, by a recipe of ``TRIES``, and keeps what is there already. With ``--test`` the network is
judged on the fold's test patients too, which should happen once, for a recipe that validation has chosen. Written
into ``benchmarks/results/studies/tries.json`` beside what is in there.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from arms import judge, make_store, train_stages
from figures import RESULTS, pooled, save_table
from folds import fold_split
from recipes import FOLDS, MODEL, PREPROCESS, SEED, STAGES, recipe
from run_arms import arguments
from withheld import SHOWN, Shown

from slicewise.config import ModelConfig, TrainConfig
from slicewise.evaluation.outputs import load_network
from slicewise.files import read_json
from slicewise.slices.store import SliceStore


@dataclass(frozen=True)
class Try:
    """A network, and how ``seg_warmup`` trains it."""

    train: TrainConfig
    model: ModelConfig = MODEL


def warmup(epochs: int, slices: int, lr: float, *, encoder_lr_factor: float = 1.0, **changes: Any) -> TrainConfig:
    """The recipe of the studies with another ``seg_warmup``."""
    own = {"epochs": epochs, "lr": lr, "patience": epochs, "encoder_lr_factor": encoder_lr_factor}
    stage = {**STAGES["seg_warmup"], **own}
    return recipe(seg_warmup=stage, sampling={"epoch_slices": slices}, **changes)


TINY, MEDIUM = (MODEL.model_copy(update={"preset": preset}) for preset in ("tiny", "medium"))
LITE = MODEL.model_copy(update={"architecture": "efficientnet_lite"})

TRIES = {
    # The tables' own, as run_arms.py trains it.
    "tables": Try(recipe()),
    # The first recipe of the studies: a tenth of the arithmetic.
    "first": Try(warmup(30, 400, 2e-3, augment={"preset": "minimal"}, ema_decay=0.99), TINY),
    # A quarter of the weights, in about the same time.
    "tiny": Try(warmup(45, 1600, 3e-3), TINY),
    # Four times the weights.
    "medium": Try(warmup(20, 600, 2e-3), MEDIUM),
    # Twice as long.
    "long": Try(warmup(40, 1600, 3e-3)),
    "aggressive": Try(warmup(20, 1600, 3e-3, augment={"preset": "aggressive"})),
    # EfficientNet-Lite0, from ImageNet's weights with --imagenet, in about the same time.
    "imagenet": Try(warmup(10, 1600, 1e-3, encoder_lr_factor=0.3), LITE),
}


def run(work: Path, store: SliceStore, name: str, fold: int, model: ModelConfig, test: bool) -> dict[str, Any]:
    """Learning curve of a try on one fold, and its test patients."""
    home = work / f"fold-{fold}" / "both" if name == "tables" else work / "tries" / name / f"fold-{fold}"
    split = fold_split(store, fold, FOLDS, SEED, home / "split")
    weights, seconds = train_stages(
        home, store, home / "split", {"stages": ("seg_warmup",), "train": TRIES[name].train}, None, model
    )
    stage = read_json(weights / "stage.json")
    told = ("epoch", "train_loss", "val_loss", "val_dice")
    found: dict[str, Any] = {
        "seconds": round(seconds),
        "precision": stage["precision"],
        "curve": [{key: round(row[key], 4) for key in told} for row in stage["history"]],
    }
    network = load_network(store, weights, model)
    for side in ("val", "test") if test else ("val",):
        for part, shown in SHOWN.items():
            judged = {part: judge(network, Shown(store, split.side(side), shown))}
            values = pooled([judged], part, lambda _: True)["WT"]
            found[f"{side}_wt_{part}"] = {study: round(dice[0], 4) for study, dice in sorted(values.items())}
    return found


def main() -> None:
    parser = arguments()
    parser.add_argument("tries", nargs="+", choices=list(TRIES))
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(FOLDS)))
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--imagenet", type=Path, help="made by imagenet_encoder.py")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(options.threads)
    store = make_store([options.lgg, options.brats], options.work, PREPROCESS)
    path = RESULTS / "tries.json"
    for name in options.tries:
        model = TRIES[name].model
        if name == "imagenet":
            model = model.model_copy(update={"encoder_weights": options.imagenet})
        for fold in options.folds:
            found = run(options.work, store, name, fold, model, options.test)
            table = dict(read_json(path)) if path.exists() else {}
            table.setdefault(name, {})[str(fold)] = found
            save_table("tries", table)


if __name__ == "__main__":
    main()
