"""What a bundle costs on this device, by engine: latency, throughput and memory.

Each engine runs in a process of its own, so that memory and load time are its own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from slicewise.config import PredictorSettings
from slicewise.cpus import available_cpus, cpu_model
from slicewise.errors import InputError
from slicewise.inference.bundle import load_bundle
from slicewise.inference.engines.base import Plan
from slicewise.inference.engines.choose import plans
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput
from slicewise.model.device import choose_device
from slicewise.progress import Update

FRAME = 240  # BraTS's
MIN_ROUNDS = 3
MIB = 2**20


@dataclass(frozen=True)
class ProfileJob:
    """What is measured.

    Attributes:
        bundle: The bundle's folder.
        device: A torch device name, or ``auto``.
        threads: CPU threads; None takes all that the process may use.
        batches: Batch sizes.
        options: What is asked for.
        seconds: About how long each batch size is measured.
    """

    bundle: Path
    device: str = "auto"
    threads: int | None = None
    batches: tuple[int, ...] = (1, 8)
    options: PredictOptions = field(default_factory=PredictOptions)
    seconds: float = 3.0


class Cost(BaseModel):
    """Of one batch size.

    Attributes:
        batch: Slices.
        latency_ms: Median and 95th percentile of one call of ``predict``.
        slices_per_second: By the median.
    """

    model_config = ConfigDict(frozen=True)

    batch: int
    latency_ms: dict[str, float]
    slices_per_second: float


class EngineProfile(BaseModel):
    """Of one engine.

    Attributes:
        engine: The plan's name.
        load_seconds: Until the Predictor is loaded and warm.
        costs: By batch size.
        memory_mib: Peak of the process, with Python and torch; ``cuda`` is the peak on the GPU.
        error: Why it could not be measured.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    load_seconds: float | None = None
    costs: tuple[Cost, ...] = ()
    memory_mib: dict[str, float] = {}
    error: str | None = None


def profile_bundle(job: ProfileJob, update: Update | None = None) -> dict[str, Any]:
    """Measure a bundle under every engine that is open on a device.

    Args:
        job: What is measured.
        update: Shows progress.

    Returns:
        ``{"bundle", "device", "cpu", "threads", "tasks", "engines": [EngineProfile]}``.

    Raises:
        BundleError: The bundle cannot be loaded.
    """
    bundle = load_bundle(job.bundle)
    device = choose_device(job.device)
    found = plans(PredictorSettings(), device)
    engines = []
    for number, plan in enumerate(found, start=1):
        engines.append(_apart(job, plan))
        if update:
            update(number, len(found), plan.name)
    return {
        "bundle": str(job.bundle),
        "digest": bundle.digest,
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "cpu": cpu_model(),
        "threads": job.threads or available_cpus(),
        "tasks": list(job.options.tasks),
        "engines": [engine.model_dump(mode="json") for engine in engines],
    }


def _apart(job: ProfileJob, plan: Plan) -> EngineProfile:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, job, plan).result()
        except BrokenProcessPool:
            return EngineProfile(engine=plan.name, error="the process ended, probably for want of memory")


def _measure(job: ProfileJob, plan: Plan) -> EngineProfile:
    start = time.perf_counter()
    settings = PredictorSettings(engine=plan.engine, dtype=plan.dtype, channels_last=plan.channels_last)
    predictor = Predictor.load(job.bundle, job.device, job.threads, settings)
    if predictor.probe.chosen != plan.name:
        return EngineProfile(engine=plan.name, error="it cannot run this network")
    predictor.warm_up()
    loaded = time.perf_counter() - start
    costs = tuple(_cost(predictor, job, size) for size in job.batches)
    return EngineProfile(
        engine=plan.name, load_seconds=round(loaded, 2), costs=costs, memory_mib=_memory(predictor.device)
    )


def _cost(predictor: Predictor, job: ProfileJob, size: int) -> Cost:
    items = made_up_slices(predictor.meta.preprocessing.modalities, size)
    _predict(predictor, items, job.options)
    taken: list[float] = []
    while len(taken) < MIN_ROUNDS or sum(taken) < job.seconds:
        start = time.perf_counter()
        _predict(predictor, items, job.options)
        taken.append(time.perf_counter() - start)
    median, high = np.percentile(taken, [50, 95])
    latency = {"p50": round(1e3 * float(median), 2), "p95": round(1e3 * float(high), 2)}
    return Cost(batch=size, latency_ms=latency, slices_per_second=round(size / float(median), 2))


def _predict(predictor: Predictor, items: Sequence[SliceInput], options: PredictOptions) -> None:
    for outcome in predictor.predict(items, options):
        if isinstance(outcome, InputError):
            raise outcome


def made_up_slices(modalities: Sequence[str], count: int, frame: int = FRAME) -> list[SliceInput]:
    """Slices of noise in a disc as large as a head.

    Args:
        modalities: Their channels.
        count: How many.
        frame: Height and width in pixels.
    """
    rng = np.random.default_rng(0)
    line = np.linspace(-1, 1, frame, dtype=np.float32)
    head = (line[:, None] ** 2 + line**2 < 0.6).astype(np.float32)
    shape = (count, len(modalities), frame, frame)
    images = head * (400 + 100 * rng.standard_normal(shape, dtype=np.float32))
    return [SliceInput(image, tuple(modalities)) for image in images]


def _memory(device: torch.device) -> dict[str, float]:
    import resource

    # Linux counts KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"process": round(peak, 1)}
    if device.type == "cuda":
        found["cuda"] = round(torch.cuda.max_memory_allocated(device) / MIB, 1)
    return found
