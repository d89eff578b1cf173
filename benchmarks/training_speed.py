"""The whole training loop against its bare arithmetic, and against a plain loop; ratios from one run.

    python benchmarks/training_speed.py > benchmarks/results/training_speed.json

Phantoms, batches of 8, one thread. ``bare`` is forward, backward and step on one resident batch, in the number type
that training takes by itself on this machine; ``loop`` is ``train_stage`` (reading, augmentation, checkpoints,
tracking; validation not counted); ``plain`` reads compressed npz files slice by slice, in fp32, and augments nothing.
Rounds alternate; medians are compared.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from slicewise.config import Config, load_config
from slicewise.cpus import cpu_model
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import build_network
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.build import build_store
from slicewise.slices.split import split_store
from slicewise.studies.acquire import acquire
from slicewise.training.precision import Precision
from slicewise.training.stage import StageJob, train_stage

ROUNDS, STEPS = 5, 12
NETWORKS = (("tiny", 112), ("small", 128), ("medium", 128))


class Step:
    """Forward, backward and optimiser step, as written by hand."""

    def __init__(self, config: Config, precision: Precision) -> None:
        self.autocast = precision.autocast
        self.network = build_network(4, config.model).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4)

    def __call__(self, batch: Batch) -> None:
        with self.autocast():
            out = self.network(batch.image)
        loss = segmentation_loss(out.regions.float(), batch.regions, batch.known)
        loss = loss + classification_loss(out.tumour.float(), batch.tumour, batch.tumour_known)
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
    """Every network, one after the other."""
    torch.set_num_threads(1)
    networks = {}
    with tempfile.TemporaryDirectory() as place:
        acquire(["phantom"], Path(place) / "data", configured(*NETWORKS[0]).download, 0)
        for number, (preset, size) in enumerate(NETWORKS):
            networks[f"{preset}, {size} pixels"] = measured(configured(preset, size), Path(place), str(number))
    cpu = cpu_model() or platform.machine()
    json.dump(
        {"networks": networks, "threads": 1, "cpu": cpu, "load_average": os.getloadavg()[0]}, sys.stdout, indent=2
    )


def configured(preset: str, size: int) -> Config:
    """Mode ``smoke`` with another network, and as many epochs as there are rounds."""
    words = [
        f"model.preset={preset}",
        f"preprocess.slice.size={size}",
        f"train.joint.epochs={ROUNDS}",
        f"train.sampling.epoch_slices={8 * STEPS}",
        "train.batch_size=8",
        "train.joint.patience=99",
        "train.joint.min_steps=0",
        "download.phantom.n_studies=16",
    ]
    return load_config("smoke", None, words)


def measured(config: Config, work: Path, name: str) -> dict[str, Any]:
    """Images a second of the three ways, in the epochs of one training."""
    home = work / name
    store = build_store(work / "data", home / "store", config.preprocess, 0)
    split = split_store(home / "store", home / "split", config.split, 0)
    data = SliceData(store, split.train, selected_only=True)
    precision = Precision(config.train.precision, torch.device("cpu"))
    step, plain, size = Step(config, precision), Step(config, Precision("fp32", torch.device("cpu"))), 8
    resident = data.fetch(range(size))
    paths = save_plain(data, home)
    seconds: dict[str, list[float]] = {"bare": [], "plain": [], "loop": []}

    def measure(_: dict[str, Any]) -> None:
        start = time.perf_counter()
        for _number in range(STEPS):
            step(resident)
        middle = time.perf_counter()
        for number in range(STEPS):
            plain(load_plain([paths[(number * size + at) % len(paths)] for at in range(size)]))
        seconds["bare"].append(middle - start)
        seconds["plain"].append(time.perf_counter() - middle)

    job = StageJob("joint", config.model, config.train, 0, home / "store", home / "split", None, home / "c")
    for row in train_stage(job, home / "out", None, measure)["history"]:
        seconds["loop"].append(row["seconds"] - row["val_seconds"])
    speed = {way: size * STEPS / statistics.median(values[1:]) for way, values in seconds.items()}
    return {
        "precision": precision.name,
        "images_per_second": {way: round(value, 2) for way, value in speed.items()},
        "loop_over_bare": round(speed["loop"] / speed["bare"], 3),
        "loop_over_plain": round(speed["loop"] / speed["plain"], 3),
    }


if __name__ == "__main__":
    main()
