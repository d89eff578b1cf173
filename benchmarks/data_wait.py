"""How long training stands still for data: the small network, each preset, with and without the loading thread.

    python benchmarks/data_wait.py --source FOLDER_OF_STUDIES --source phantom

writes ``benchmarks/results/data_wait.json`` and ``data_wait.md``. For each source the studies are preprocessed as
the modes smoke and quick do, and the network learns both tasks from them. Fetching and augmenting are also timed by
themselves, with the files in the page cache.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from slicewise.config import AugmentConfig, load_config
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.build import build_store
from slicewise.slices.loading import AHEAD, ready_ahead
from slicewise.slices.store import SliceStore
from slicewise.studies.acquire import acquire

STEPS = 14
WARM_UP = 2
RESULT = Path(__file__).parent / "results" / "data_wait.json"


def make_batch(data: SliceData, size: int, config: AugmentConfig, step: int) -> Batch:
    order = torch.randint(len(data), (size,), generator=torch.Generator().manual_seed(step)).tolist()
    return augment(data.fetch(order), config, torch.Generator().manual_seed(step))


class Training:
    def __init__(self, channels: int, mode: str) -> None:
        self.network = MultiTaskUNet(channels, load_config(mode).model).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4)

    def step(self, batch: Batch) -> None:
        logits = self.network(batch.image, segment=True)
        loss = segmentation_loss(logits.regions, batch.regions, batch.known)
        loss = loss + classification_loss(logits.tumour, batch.tumour, batch.tumour_known)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()

    def run(self, jobs: list[Callable[[], Batch]], ahead: int) -> dict[str, float]:
        with ready_ahead(jobs, ahead) as batches:
            for number, batch in enumerate(batches):
                if number == WARM_UP:
                    start, before = time.perf_counter(), batches.waited
                self.step(batch)
        total, steps = time.perf_counter() - start, len(jobs) - WARM_UP
        # The first timed batch was made before the clock started, the last one is not followed by a wait.
        waited = (batches.waited - before) * steps / (steps - 1)
        return {"wait_share": waited / total, "ms_per_step": 1e3 * total / steps}


def median_ms(call: Callable[[int], object]) -> float:
    seconds = []
    for number in range(STEPS):
        start = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[WARM_UP:])


def measure(data: SliceData, mode: str, preset: str) -> dict[str, float]:
    size, config = load_config(mode).train.batch_size, AugmentConfig(preset=preset)
    training = Training(len(data.store.index.preprocessing.modalities), mode)
    jobs: list[Callable[[], Batch]] = [
        functools.partial(make_batch, data, size, config, step) for step in range(STEPS + WARM_UP)
    ]
    batch = data.fetch(range(size))
    alone, beside = training.run(jobs, 0), training.run(jobs, AHEAD)
    return {
        "batch_size": size,
        "fetch_ms": median_ms(lambda step: data.fetch(range(step % 8, len(data), len(data) // size)[:size])),
        "augment_ms": median_ms(lambda step: augment(batch, config, torch.Generator().manual_seed(step))),
        "step_ms": alone["ms_per_step"] * (1 - alone["wait_share"]),
        "wait_share_without_thread": alone["wait_share"],
        "wait_share": beside["wait_share"],
        "ms_per_step_without_thread": alone["ms_per_step"],
        "ms_per_step": beside["ms_per_step"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    parser.add_argument("--note", default="", help="what else was going on, such as other work on the machine")
    options = parser.parse_args()
    rows = []
    for source in options.source:
        for mode in ("smoke", "quick"):
            config = load_config(mode, overrides=["download.max_studies=10"])
            with tempfile.TemporaryDirectory() as name:
                acquire([source], Path(name) / "dataset", config.download, seed=0)
                build_store(Path(name) / "dataset", Path(name) / "store", config.preprocess, seed=0)
                store = SliceStore(Path(name) / "store")
                data = SliceData(store, list(store.studies), selected_only=True)
                for preset in ("minimal", "moderate", "aggressive"):
                    figures = {key: round(value, 4) for key, value in measure(data, mode, preset).items()}
                    kind = "phantom" if source == "phantom" else Path(source).name
                    rows.append({"source": kind, "mode": mode, "preset": preset, **figures})
                    print(json.dumps(rows[-1]))
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    result = {"date": options.date, "machine": machine, "steps": STEPS, "note": options.note, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    RESULT.with_suffix(".md").write_text(as_table(result))


def as_table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        "# How long training stands still for data",
        "",
        f"`python benchmarks/data_wait.py --source … --source phantom`, {result['date']}; {machine['cores']} cores, "
        f"{machine['threads']} threads, torch {machine['torch']}; medians and shares over {result['steps']} steps of "
        f"the small network. {result['note']}".rstrip(),
        "",
        "| source | mode | preset | fetch ms | augment ms | step ms | waiting without the thread | waiting |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        times = " | ".join(f"{row[key]:.1f}" for key in ("fetch_ms", "augment_ms", "step_ms"))
        shares = " | ".join(f"{row[key]:.2%}" for key in ("wait_share_without_thread", "wait_share"))
        lines.append(f"| {row['source']} | {row['mode']} | {row['preset']} | {times} | {shares} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
