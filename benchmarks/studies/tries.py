"""Other recipes for segmentation, on the folds of the studies: what validation patients say of each.

    python benchmarks/studies/tries.py --lgg LGG --brats BRATS --work WORK [--folds 0 1] [--test] TRY...

Trains ``seg_warmup`` alone, by a recipe of ``TRIES``, and keeps what is there already. With ``--test`` the network of
the best epoch on validation is judged on the fold's test patients, which should happen once, for a recipe that
validation has chosen. Written into ``benchmarks/results/studies/tries.json`` beside what is in there.
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
from figures import RESULTS, mean_over_patients, pooled, save_table
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


def warmup(epochs: int, slices: int, lr: float, **changes: Any) -> TrainConfig:
    """The recipe of the studies with another ``seg_warmup``."""
    stage = {**STAGES["seg_warmup"], "epochs": epochs, "lr": lr, "patience": epochs}
    return recipe(seg_warmup=stage, sampling={"epoch_slices": slices}, **changes)


TINY, MEDIUM = (MODEL.model_copy(update={"preset": preset}) for preset in ("tiny", "medium"))

TRIES = {
    # The first recipe of the studies: a twelfth of the arithmetic.
    "first": Try(warmup(30, 400, 2e-3, augment={"preset": "minimal"}, ema_decay=0.99), TINY),
    # A quarter of the weights, in about the same time.
    "tiny": Try(warmup(45, 1600, 3e-3), TINY),
    # Four times the weights.
    "medium": Try(warmup(20, 600, 2e-3), MEDIUM),
    # Twice as long.
    "long": Try(warmup(40, 1600, 3e-3)),
}


def run(work: Path, store: SliceStore, name: str, fold: int, test: bool) -> dict[str, Any]:
    """Learning curve of a try on one fold, and its test patients."""
    home = work / "tries" / name.replace(", ", "-") / f"fold-{fold}"
    split = fold_split(store, fold, FOLDS, SEED, home / "split")
    weights, seconds = train_stages(
        home, store, home / "split", {"stages": ("seg_warmup",), "train": TRIES[name].train}, None, TRIES[name].model
    )
    stage = read_json(weights / "stage.json")
    told = ("epoch", "train_loss", "val_loss", "val_dice")
    found: dict[str, Any] = {
        "seconds": round(seconds),
        "precision": stage["precision"],
        "best_val_dice": round(stage["best_score"], 4),
        "curve": [{key: round(row[key], 4) for key in told} for row in stage["history"]],
    }
    if test:
        network = load_network(store, weights, TRIES[name].model)
        for part, shown in SHOWN.items():
            judged = {part: judge(network, Shown(store, split.test, shown))}
            values = pooled([judged], part, lambda _: True)["WT"]
            patients = {study: round(dice[0], 4) for study, dice in sorted(values.items())}
            found[f"test_wt_{part}"] = {**mean_over_patients(values), "patients": patients}
    return found


def main() -> None:
    parser = arguments()
    parser.add_argument("tries", nargs="+", choices=list(TRIES))
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(FOLDS)))
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(options.threads)
    store = make_store([options.lgg, options.brats], options.work, PREPROCESS)
    path = RESULTS / "tries.json"
    table: dict[str, Any] = dict(read_json(path)) if path.exists() else {}
    for name in options.tries:
        for fold in options.folds:
            table.setdefault(name, {})[str(fold)] = run(options.work, store, name, fold, options.test)
            save_table("tries", table)


if __name__ == "__main__":
    main()
