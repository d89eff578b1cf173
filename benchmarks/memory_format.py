"""Training step of the small network on this CPU: contiguous against channels_last, interleaved in one run.

python benchmarks/memory_format.py > benchmarks/results/memory_format.json
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from slicewise.config import ModelConfig
from slicewise.model.network import MultiTaskUNet

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ROUNDS = 9


def main() -> None:
    batch = torch.randn(8, 4, 96, 96)
    networks = {name: MultiTaskUNet(4, ModelConfig()).to(memory_format=form) for name, form in FORMATS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
    for _ in range(ROUNDS):
        for name, form in FORMATS.items():
            image = batch.contiguous(memory_format=form)
            start = time.perf_counter()
            out = networks[name](image)
            (out.regions.mean() + out.tumour.mean()).backward()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(values[1:]), 4) for name, values in seconds.items()}
    ratio = round(medians["channels_last"] / medians["contiguous"], 2)
    result = {"seconds": medians, "channels_last_over_contiguous": ratio, "threads": torch.get_num_threads()}
    json.dump(result, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
