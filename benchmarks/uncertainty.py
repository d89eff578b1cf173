"""What uncertainty and explanation cost, in passes of the network, interleaved in one run.

Uncertainty: batched samples against as many calls, and by the size of the decoder's batches.

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
from typing import Any, get_args

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn

from slicewise.config import ModelConfig
from slicewise.inference import sampling
from slicewise.inference.calibration import Calibration
from slicewise.inference.explain import ExplainMethod, explain, trace_features
from slicewise.inference.sampling import Member, SamplingPlan, draw_samples
from slicewise.model.network import MultiTaskUNet

ROUNDS = 7
SAMPLES = 10
CHUNKS = (1, 2, 5, 10, 20, 40)
CASES = list(itertools.product(("tiny", "small"), (96, 128), (1, 8)))


def a_head(batch: int, size: int) -> torch.Tensor:
    """Noise in a disc that fills 60 % of the square, as a cropped head does; 0 around it."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    return torch.randn(batch, 4, size, size) * (rows**2 + columns**2 < 0.76)


def naive(network: MultiTaskUNet, image: torch.Tensor) -> None:
    """As many whole calls with the dropout switched on; half of them of the mirror image would cost the same."""
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
    for module in dropouts:
        module.train()
    with torch.inference_mode():
        for _ in range(SAMPLES):
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
        "naive": lambda: naive(network, image),
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


def explain_ratios(network: MultiTaskUNet, image: torch.Tensor) -> dict[str, float]:
    """Time of the encoder and the explanation, over that of one pass."""

    def explained(method: ExplainMethod) -> None:
        with torch.inference_mode():
            features = trace_features(network, image) if method == "hirescam" else network.encoder(image)
        explain(network, image, features, method)

    runs: dict[str, Callable[[], object]] = {"forward": ways(network, image)["forward"]}
    runs |= {method: lambda method=method: explained(method) for method in get_args(ExplainMethod)}  # type: ignore[misc]
    return ratios(runs, "forward")


def main() -> None:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for preset, size, batch in CASES:
        network = MultiTaskUNet(4, ModelConfig(preset=preset)).eval().requires_grad_(False)
        image = a_head(batch, size)
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
