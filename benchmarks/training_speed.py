"""The whole training loop against its bare arithmetic, and against a plain loop; ratios from one run.

    python benchmarks/training_speed.py > benchmarks/results/training_speed.json

Phantoms, the network and batch of mode ``smoke``. ``bare`` is forward, backward and step on one resident batch;
``loop`` is ``train_stage`` (reading, augmentation, checkpoints, tracking; validation not counted); ``plain`` reads
compressed npz files slice by slice and augments nothing. Rounds alternate; medians are compared.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from slicewise.config import load_config
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import build_network
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.build import build_store
from slicewise.slices.split import split_store
from slicewise.studies.acquire import acquire
from slicewise.training.stage import StageJob, train_stage

ROUNDS, STEPS = 5, 20


class Step:
    """Forward, backward and optimiser step, as written by hand."""

    def __init__(self, config: Any) -> None:
        self.network = build_network(4, config.model).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4)

    def __call__(self, batch: Batch) -> None:
        out = self.network(batch.image)
        loss = segmentation_loss(out.regions, batch.regions, batch.known)
        loss = loss + classification_loss(out.tumour, batch.tumour, batch.tumour_known)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def save_plain(data: SliceData, folder: Path) -> list[Path]:
    """One compressed file a slice."""
    paths = []
    for row in range(len(data)):
        batch = data.fetch([row])
        parts = {
            name: getattr(batch, name).numpy() for name in ("image", "regions", "known", "tumour", "tumour_known")
        }
        paths.append(folder / f"{row}.npz")
        np.savez_compressed(paths[-1], **parts)
    return paths


def load_plain(paths: list[Path]) -> Batch:
    files = [np.load(path) for path in paths]
    names = ("image", "regions", "known", "tumour", "tumour_known")
    parts = {name: torch.from_numpy(np.concatenate([file[name] for file in files])) for name in names}
    return Batch(**parts, study=np.zeros(len(paths), dtype=np.intp))


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        words = [
            f"train.joint.epochs={ROUNDS}",
            f"train.sampling.epoch_slices={8 * STEPS}",
            "train.joint.patience=99",
            "train.joint.min_steps=0",
            "download.phantom.n_studies=16",
        ]
        config = load_config("smoke", None, words)
        acquire(["phantom"], work / "data", config.download, 0)
        store = build_store(work / "data", work / "store", config.preprocess, 0)
        split = split_store(work / "store", work / "split", config.split, 0)
        data = SliceData(store, split.train, selected_only=True)
        step, size = Step(config), config.train.batch_size
        resident = data.fetch(range(size))
        paths = save_plain(data, work)
        seconds: dict[str, list[float]] = {"bare": [], "plain": [], "loop": []}

        def measure(_: dict[str, Any]) -> None:
            start = time.perf_counter()
            for _number in range(STEPS):
                step(resident)
            middle = time.perf_counter()
            for number in range(STEPS):
                step(load_plain([paths[(number * size + at) % len(paths)] for at in range(size)]))
            seconds["bare"].append(middle - start)
            seconds["plain"].append(time.perf_counter() - middle)

        job = StageJob("joint", config.model, config.train, 0, work / "store", work / "split", None, work / "c")
        for row in train_stage(job, work / "out", None, measure)["history"]:
            seconds["loop"].append(row["seconds"] - row["val_seconds"])
    speed = {name: size * STEPS / statistics.median(values[1:]) for name, values in seconds.items()}
    result = {
        "images_per_second": {name: round(value, 2) for name, value in speed.items()},
        "loop_over_bare": round(speed["loop"] / speed["bare"], 3),
        "loop_over_plain": round(speed["loop"] / speed["plain"], 3),
        "threads": 1,
        "load_average": os.getloadavg()[0],
    }
    json.dump(result, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
