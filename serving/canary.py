"""A new version beside the former one: both are asked the same, step by step, and compared."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.client.sync_client import Client
from slicewise.config import MODALITIES, PhantomConfig
from slicewise.config.canary import CanaryConfig
from slicewise.errors import SliceWiseError

PROBES = 16
SEED = 20240

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """What one step measured.

    Attributes:
        requests: Pairs of requests.
        error_rate: Share of the new version's requests that failed.
        latency_ratio: Median latency, new over former; None where there is nothing to compare.
        agreement: Share of equal labels among the pairs that both answered; None where there are none.
    """

    requests: int
    error_rate: float
    latency_ratio: float | None
    agreement: float | None

    def broken(self, limits: CanaryConfig) -> str:
        """The limit that does not hold, in words; empty when all do."""
        if self.error_rate > limits.max_error_rate:
            return f"error rate {self.error_rate:.3f} is above {limits.max_error_rate:g}"
        if self.latency_ratio is not None and self.latency_ratio > limits.max_latency_ratio:
            return (
                f"latency is {self.latency_ratio:.2f} times the former version's, above {limits.max_latency_ratio:g}"
            )
        if self.agreement is not None and self.agreement < limits.min_agreement:
            return f"answers agree in {self.agreement:.2f} of the slices, below {limits.min_agreement:g}"
        return ""


@dataclass(frozen=True)
class _Answer:
    label: str | None
    seconds: float


def probe_slices(count: int = PROBES) -> list[NDArray[np.uint8]]:
    """Slices ``[H, W]`` through the tumours of synthetic heads, alike on every machine."""
    from slicewise.studies.phantom import make_phantom

    found = []
    for index in range(count):
        study = make_phantom(index, PhantomConfig(), SEED)
        volume = np.asarray(study.images[MODALITIES[0]], dtype=np.float64)
        picture = volume[:, :, volume.shape[2] // 2]
        found.append((255 * picture / max(picture.max(), 1.0)).astype(np.uint8))
    return found


def compare(new_url: str, former_url: str, slices: Sequence[NDArray[np.uint8]], limits: CanaryConfig) -> Figures:
    """Ask both versions, in turn, until the step's requests and its time are over.

    Args:
        new_url: The candidate's gateway.
        former_url: The gateway of the version that serves now.
        slices: The slices to send, again and again.
        limits: ``requests`` and ``hold_s``.
    """
    pairs: list[tuple[_Answer, _Answer]] = []
    end = time.monotonic() + limits.hold_s
    with Client(new_url) as new, Client(former_url) as former:
        while len(pairs) < limits.requests or time.monotonic() < end:
            picture = slices[len(pairs) % len(slices)]
            pairs.append((_ask(new, picture), _ask(former, picture)))
    return _figures(pairs)


def walk_steps(measure: Callable[[], Figures], limits: CanaryConfig, share: Callable[[int], None]) -> str:
    """Take every step while the limits hold.

    Args:
        measure: Measures one step.
        limits: The steps and limits.
        share: Gives the candidate so many per cent of the traffic.

    Returns:
        Why it was stopped; empty when all steps passed.
    """
    for percent in limits.steps:
        share(percent)
        figures = measure()
        log.info("canary at %d %%: %s", percent, figures)
        if reason := figures.broken(limits):
            return f"at {percent} %: {reason}"
    return ""


def _ask(client: Client, picture: NDArray[np.uint8]) -> _Answer:
    start = time.perf_counter()
    try:
        label: str | None = str(client.multitask(picture).predicted_label)
    except SliceWiseError as error:
        log.warning("a probe failed: %s", error)
        label = None
    return _Answer(label, time.perf_counter() - start)


def _figures(pairs: Sequence[tuple[_Answer, _Answer]]) -> Figures:
    both = [(new, former) for new, former in pairs if new.label is not None and former.label is not None]
    ratio = agreement = None
    if both:
        former_s = statistics.median(former.seconds for _, former in both)
        ratio = statistics.median(new.seconds for new, _ in both) / former_s
        agreement = sum(new.label == former.label for new, former in both) / len(both)
    return Figures(len(pairs), sum(new.label is None for new, _ in pairs) / len(pairs), ratio, agreement)
