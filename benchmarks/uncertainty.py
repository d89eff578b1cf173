"""What uncertainty costs, in passes of the network: batched samples against as many calls, interleaved in one run.

python benchmarks/uncertainty.py > benchmarks/results/uncertainty.json
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn

from slicewise.config import ModelConfig
from slicewise.inference import sampling
from slicewise.inference.calibration import Calibration
from slicewise.inference.sampling import Member, SamplingPlan, draw_samples
from slicewise.model.network import MultiTaskUNet

ROUNDS = 7
SAMPLES = 10
CHUNKS = (1, 2, 5, 10, 20, 40)
CASES = list(itertools.product(("tiny", "small"), (96, 128), (1, 8)))


def naive(network: MultiTaskUNet, image: torch.Tensor, passes: int) -> None:
    """Whole calls with the dropout switched on."""
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
    for module in dropouts:
        module.train()
    with torch.inference_mode():
        for _ in range(passes):
            network(image)
    network.eval()


def ways(network: MultiTaskUNet, image: torch.Tensor) -> dict[str, Callable[[], object]]:
    members = [Member(network, Calibration())]

    def once() -> None:
        with torch.inference_mode():
            network(image)

    return {
        "forward": once,
        "mc": lambda: draw_samples(members, image, SamplingPlan(SAMPLES)),
        "mc_tta": lambda: draw_samples(members, image, SamplingPlan(SAMPLES, mirror=True)),
        "naive_mc": lambda: naive(network, image, SAMPLES),
        "naive_mc_tta": lambda: naive(network, image, 2 * SAMPLES),
    }


def ratios(runs: dict[str, Callable[[], object]], reference: str) -> dict[str, float]:
    """Each way's time over the reference's of the same round, the median of all rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    passes = seconds[reference][1:]
    paired = {name: [a / b for a, b in zip(values[1:], passes, strict=True)] for name, values in seconds.items()}
    return {name: round(statistics.median(values), 2) for name, values in paired.items()}


def chunk_ratios(network: MultiTaskUNet, image: torch.Tensor) -> dict[str, float]:
    """Time of the samples by the number of slices in one batch of the decoder, over that of one pass."""
    members, pixels = [Member(network, Calibration())], image.shape[2] * image.shape[3]

    def in_chunks(chunk: int) -> None:
        sampling.CHUNK_PIXELS = chunk * pixels
        draw_samples(members, image, SamplingPlan(SAMPLES))

    before = sampling.CHUNK_PIXELS
    runs: dict[str, Callable[[], object]] = {"forward": ways(network, image)["forward"]}
    runs |= {str(chunk): lambda chunk=chunk: in_chunks(chunk) for chunk in CHUNKS}  # type: ignore[misc]
    found = ratios(runs, "forward")
    sampling.CHUNK_PIXELS = before
    return {name: value for name, value in found.items() if name != "forward"}


def main() -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for preset, size, batch in CASES:
        network = MultiTaskUNet(4, ModelConfig(preset=preset)).eval()
        image = torch.randn(batch, 4, size, size)
        case = {"preset": preset, "pixels": size, "batch": batch}
        rows.append(
            case | {"passes": ratios(ways(network, image), "forward"), "chunks": chunk_ratios(network, image)}
        )
    result = {
        "samples": SAMPLES,
        "rounds": ROUNDS,
        "threads": 1,
        "chunk_pixels": sampling.CHUNK_PIXELS,
        "cases": rows,
    }
    json.dump(result, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
