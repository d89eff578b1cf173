"""A new version beside the former one: both are asked the same, step by step, and compared."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.config import MODALITIES, PhantomConfig
from slicewise.config.canary import CanaryConfig
from slicewise.errors import SliceWiseError

PROBES = 16
SEED = 20240
WARM_UPS = 2

# Gives the label of a slice [H, W]; raises SliceWiseError where there is no answer.
Asker = Callable[[NDArray[np.uint8]], str]

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


def walk_steps(
    new: Asker,
    former: Asker,
    limits: CanaryConfig,
    share: Callable[[int], None],
    slices: Sequence[NDArray[np.uint8]],
) -> str:
    """Take every step while the limits hold.

    Args:
        new: Asks the candidate.
        former: Asks the version that serves now.
        limits: The steps and limits.
        share: Gives the candidate so many per cent of the traffic.
        slices: The slices to send, again and again.

    Returns:
        Why it was stopped; empty when all steps passed.
    """
    for picture in slices[:WARM_UPS]:
        # A server's first answers are slow, and tell nothing of the model.
        _ask(new, picture)
        _ask(former, picture)
    for percent in limits.steps:
        share(percent)
        figures = compare(new, former, limits, slices)
        log.info("canary at %d %%: %s", percent, figures)
        if reason := figures.broken(limits):
            return f"at {percent} %: {reason}"
    return ""


def compare(new: Asker, former: Asker, limits: CanaryConfig, slices: Sequence[NDArray[np.uint8]]) -> Figures:
    """One step: ask both versions, in turn, evenly over the time that a step takes."""
    pairs: list[tuple[_Answer, _Answer]] = []
    start, pause_s = time.monotonic(), limits.hold_s / limits.requests
    while len(pairs) < limits.requests:
        picture = slices[len(pairs) % len(slices)]
        pairs.append((_ask(new, picture), _ask(former, picture)))
        time.sleep(max(0.0, start + pause_s * len(pairs) - time.monotonic()))
    return _figures(pairs)


def _ask(asker: Asker, picture: NDArray[np.uint8]) -> _Answer:
    start = time.perf_counter()
    try:
        label: str | None = asker(picture)
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
    else:
        log.warning("the former version answered no probe: there was nothing to compare with")
    return Figures(len(pairs), sum(new.label is None for new, _ in pairs) / len(pairs), ratio, agreement)
