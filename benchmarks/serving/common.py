"""What the serving benchmarks share: a bundle, a running stack, requests and what they should be answered."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
import torch

from serving.codecs import v2
from serving.local import start_detached, stop_stack
from serving.state import StackState
from slicewise.config import ModelConfig, ServeConfig, SliceConfig
from slicewise.cpus import available_cpus, cpu_model, has_bf16
from slicewise.inference.bundle import BundleMeta, write_bundle
from slicewise.inference.profile import made_up_slices
from slicewise.model.network import build_network

RESULTS = Path(__file__).parents[1] / "results" / "serving"
BACKENDS = ("torchserve-http", "torchserve-grpc", "inprocess")
PRESET, SIZE = "small", 128
START_S = 240.0


def fresh_bundle(folder: Path, preset: str = PRESET, size: int = SIZE) -> Path:
    """An untrained network, which costs the same as a trained one, in a bundle."""
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"preset": preset})
    meta = BundleMeta(architecture=config, preprocessing=SliceConfig(size=size))
    return write_bundle(folder / f"{preset}-{size}", build_network(4, config).state_dict(), meta).folder


@contextlib.contextmanager
def workspace(bundle: Path | None) -> Iterator[tuple[Path, Path]]:
    """A scratch folder, and the given bundle or a fresh one in it."""
    with tempfile.TemporaryDirectory(prefix="slicewise-bench-") as name:
        folder = Path(name)
        yield folder, bundle or fresh_bundle(folder)


@contextlib.contextmanager
def running(bundle: Path, config: ServeConfig, work: Path) -> Iterator[StackState]:
    """A stack of processes of its own, which ends with this one."""
    state = start_detached(bundle, None, config, work, os.getpid(), START_S)
    try:
        yield state
    finally:
        stop_stack(state)


def v2_request(images: Sequence[Any], parameters: dict[str, Any], wanted: tuple[str, ...] = ()) -> tuple[bytes, dict]:
    """Body and headers of a V2 binary request that is answered in binary."""
    message = v2.Message({"image": np.stack(images).astype(np.float32)}, parameters | {"binary_data_output": True})
    body, length = v2.write(v2.Message(message.tensors, message.parameters, wanted=wanted), "inputs", binary=True)
    return body, {v2.LENGTH_HEADER: str(length), "content-type": v2.BINARY}


def heads(count: int, side: int = 240) -> list[Any]:
    """Made-up slices ``[1, side, side]`` of one modality."""
    return [item.image for item in made_up_slices(("flair",), count, side)]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    found = np.percentile(seconds, [50, 95, 99]) * 1e3 if len(seconds) else [float("nan")] * 3
    return {f"p{rank}_ms": round(float(value), 1) for rank, value in zip((50, 95, 99), found, strict=True)}


def median(values: Sequence[float]) -> float:
    """The median, to four digits."""
    return float(f"{statistics.median(values):.4g}")


def machine() -> dict[str, Any]:
    """What a reader needs to judge the numbers: the command, the cores, and what else was running."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "cpus": available_cpus(),
        "processor": cpu_model() or platform.machine(),
        "bf16": has_bf16(),
        "load_average": [round(value, 2) for value in psutil.getloadavg()],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save(name: str, result: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/serving/<name>.json``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return target
