"""Train arms on folds; what is there already is kept.

python benchmarks/studies/run_arms.py --lgg FOLDER --brats FOLDER --work FOLDER both brats segment classify lgg
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from arms import make_store, run_fold
from recipes import ARMS, FOLDS, PREPROCESS


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lgg", required=True)
    parser.add_argument("--brats", required=True)
    parser.add_argument("--work", type=Path, required=True, help="where models and results of the folds lie")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    parser = arguments()
    parser.add_argument("arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--folds", type=int, nargs="*", default=list(range(FOLDS)))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(options.threads)
    store = make_store([options.lgg, options.brats], options.work, PREPROCESS)
    for fold in options.folds:
        for arm in options.arms:
            run_fold(options.work, store, arm, fold, subsets=arm == "both")


if __name__ == "__main__":
    main()
