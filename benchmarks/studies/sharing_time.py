"""Time per slice of one network with two tasks against one network a task; ratios from interleaved rounds.

python benchmarks/studies/sharing_time.py

The network and size of the studies, untrained, as time does not depend on weights. One thread, batches of 8.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from figures import save_table
from recipes import MODEL, SIZE

from slicewise.model.network import build_network

BATCH, ROUNDS, MODALITIES = 8, 60, 4


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call, for each slice."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start) / BATCH


def main() -> None:
    torch.set_num_threads(1)
    network = build_network(MODALITIES, MODEL).eval()
    images = torch.randn(BATCH, MODALITIES, SIZE, SIZE)
    # The head is three small layers: a network for segmentation alone takes as long as one for both.
    ways = {"both tasks, or segmentation alone": True, "classification alone": False}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, segment in ways.items():
                found[name].append(milliseconds(functools.partial(network, images, segment=segment)))
    medians = {name: statistics.median(values[5:]) for name, values in found.items()}
    one, classify = medians.values()
    result = {"ms_per_slice": medians, "two_networks_over_one": (one + classify) / one}
    save_table("sharing_time", result | {"size": SIZE, "batch": BATCH, "load_average": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
