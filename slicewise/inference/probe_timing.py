"""Timing one way of running the network, and comparing its answers with torch's."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from slicewise.config import PredictorSettings
from slicewise.inference.engines.base import PROBABILITY_TOLERANCE, Engine, Plan
from slicewise.inference.engines.choose import Site, build_engine

BATCHES = (1, 8)
MIN_ROUNDS, MAX_ROUNDS = 3, 15


class Timing(BaseModel):
    """One plan, timed.

    Attributes:
        name: The plan's.
        load_seconds: To set it up, the first pass included.
        ms_per_slice: Batch size → median milliseconds a slice of one encoder and one decoder pass; empty where it
            could not run.
        apart: Greatest difference of a probability from torch in float32, where that was a candidate, too.
        error: Why it could not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    load_seconds: float = 0.0
    ms_per_slice: dict[int, float] = {}
    apart: float | None = None
    error: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it ran and gave the same answers."""
        return bool(self.ms_per_slice) and (self.apart is None or self.apart <= PROBABILITY_TOLERANCE)

    @property
    def cost(self) -> float:
        """Geometric mean of the milliseconds a slice, alone and in a batch, so that neither outweighs the other."""
        return float(np.exp(np.mean(np.log(list(self.ms_per_slice.values())))))

    def __str__(self) -> str:
        """For the log."""
        speeds = ", ".join(f"{value:.1f} ms a slice at batch {size}" for size, value in self.ms_per_slice.items())
        return f"{self.name}: {self.error or speeds}{'' if self.usable else ', not usable'}"


@dataclass(frozen=True)
class Tried:
    """An engine that was set up and timed; None where it cannot run."""

    engine: Engine | None
    timing: Timing
    answer: torch.Tensor | None = None


def try_plan(
    site: Site, plan: Plan, settings: PredictorSettings, seconds: float, expected: torch.Tensor | None
) -> Tried:
    """Set up and time one plan.

    Args:
        site: The network and where it runs.
        plan: The way of running it.
        settings: What CUDA may do.
        seconds: About how long it may be timed; 0 only sets it up.
        expected: Probabilities that it should give; None compares with nothing.
    """
    image = _made_up(site)
    start = time.perf_counter()
    try:
        engine = build_engine(site, plan, settings)
        answer = _pass(engine, image).sigmoid()
    except (ImportError, RuntimeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Tried(None, Timing(name=plan.name, error=reason[:200]))
    loaded = round(time.perf_counter() - start, 2)
    apart = None if expected is None else float((answer - expected).abs().max())
    share = seconds / len(BATCHES)
    speeds = {size: _time(engine, image[:size], share) for size in BATCHES} if seconds else {}
    timing = Timing(name=plan.name, load_seconds=loaded, ms_per_slice=speeds, apart=apart)
    return Tried(engine, timing, answer)


def _pass(engine: Engine, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return engine.regions(engine.features(image))


def _time(engine: Engine, image: torch.Tensor, seconds: float) -> float:
    """Median milliseconds a slice, of some passes within about so many seconds."""
    _pass(engine, image)  # buffers of this batch size are made
    taken: list[float] = []
    while len(taken) < MIN_ROUNDS or (sum(taken) < seconds and len(taken) < MAX_ROUNDS):
        start = time.perf_counter()
        _pass(engine, image)
        taken.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(taken) / len(image), 3)


def _made_up(site: Site) -> torch.Tensor:
    """Noise in a disc: no scan, but as much for the layers to do."""
    shape = (max(BATCHES), site.network.encoder.in_channels, site.size, site.size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    line = torch.linspace(-1, 1, site.size)
    return (noise * (line[:, None] ** 2 + line**2 < 0.8)).to(site.device)
