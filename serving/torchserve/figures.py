"""What one batch tells of itself to monitoring: counts and sizes, never images or names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from serving.status import status_of
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction, SliceInput

SAMPLE = 4096
PERCENTILES = {"p05": 5.0, "p50": 50.0, "p95": 95.0}

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One Prometheus metric.

    Attributes:
        name: Its name on the port.
        kind: Its type.
        unit: What it counts or measures.
        label: Its own label beside the model's name; empty for none.
        text: What it is.
    """

    name: str
    kind: Kind
    unit: str
    text: str
    label: str = ""


METRICS = (
    Metric("slicewise_phase_seconds", "histogram", "seconds", "Time of one batch in each phase.", "phase"),
    Metric("slicewise_batch_requests", "histogram", "Count", "Requests that shared a batch."),
    Metric("slicewise_batch_slices", "histogram", "Count", "Slices that shared a batch."),
    Metric("slicewise_slices_total", "counter", "Count", "Slices predicted."),
    Metric("slicewise_tumour_slices_total", "counter", "Count", "Slices whose probability reached the threshold."),
    Metric("slicewise_tumour_rate", "gauge", "ratio", "Share of tumour slices in the last batch."),
    Metric("slicewise_ood_score", "histogram", "score", "How unlike the training slices each slice is, 0 to 1."),
    Metric("slicewise_ood_slices_total", "counter", "Count", "Slices above the out-of-distribution threshold."),
    Metric("slicewise_ood_share", "gauge", "ratio", "Share of such slices in the last batch."),
    Metric("slicewise_bad_items_total", "counter", "Count", "Items that failed, by error code.", "code"),
    Metric("slicewise_input_intensity", "gauge", "intensity", "Raw intensities of the last batch.", "statistic"),
)


@dataclass
class BatchFigures:
    """What is gathered while a batch is answered.

    Attributes:
        requests: In the batch.
        predictions: The slices that were predicted.
        phases_s: Seconds of each phase, over the whole batch.
        errors: Failed items and requests by error code.
        samples: Some pixels of each slice.
    """

    requests: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    phases_s: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    samples: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = field(default_factory=list)

    def add_chunk(self, items: Sequence[SliceInput], outcomes: Sequence[Prediction | InputError]) -> None:
        """Slices that went through the network together."""
        good = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
        self.predictions += good
        if good:
            self.phases_s.update({phase: value / 1e3 for phase, value in good[0].timings_ms.items()})
        self.samples += [_sample(item) for item in items]

    def add_errors(self, outcomes: Sequence[object]) -> None:
        """Whatever of these is an error."""
        self.errors.update(status_of(item).code for item in outcomes if isinstance(item, InputError))


def observations(figures: BatchFigures) -> Iterator[tuple[str, float, str]]:
    """Name, value and the value of the metric's own label, for everything that the batch moves."""
    for phase, seconds in figures.phases_s.items():
        yield "slicewise_phase_seconds", float(seconds), phase
    for code, count in figures.errors.items():
        yield "slicewise_bad_items_total", float(count), code
    if figures.requests:
        yield "slicewise_batch_requests", float(figures.requests), ""
    if figures.predictions:
        yield from _of_predictions(figures.predictions)
    for statistic, value in _intensities(figures).items():
        yield "slicewise_input_intensity", value, statistic


def _of_predictions(predictions: Sequence[Prediction]) -> Iterator[tuple[str, float, str]]:
    total = len(predictions)
    tumours = sum(prediction.tumor_label for prediction in predictions)
    yield "slicewise_batch_slices", float(total), ""
    yield "slicewise_slices_total", float(total), ""
    yield "slicewise_tumour_slices_total", float(tumours), ""
    yield "slicewise_tumour_rate", tumours / total, ""
    scores = [prediction.ood_score for prediction in predictions if prediction.ood_score is not None]
    for score in scores:
        yield "slicewise_ood_score", score, ""
    if scores:
        flagged = sum(bool(prediction.ood_flag) for prediction in predictions)
        yield "slicewise_ood_slices_total", float(flagged), ""
        yield "slicewise_ood_share", flagged / total, ""


def _sample(item: SliceInput) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Evenly spread pixels: percentiles of all would cost more than they tell."""
    flat = item.image.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE)].astype(np.float32)


def _intensities(figures: BatchFigures) -> Mapping[str, float]:
    """Mean and percentiles of the pixels that are not background."""
    if not figures.samples:
        return {}
    pixels = np.concatenate(figures.samples)
    pixels = pixels[:: max(1, pixels.size // SAMPLE)]  # of a large batch, less of each slice
    pixels = pixels[np.isfinite(pixels) & (pixels != 0)]
    if not pixels.size:
        return {}
    return {"mean": float(pixels.mean())} | _percentiles(np.sort(pixels))


def _percentiles(ordered: np.ndarray[tuple[int], np.dtype[np.float32]]) -> dict[str, float]:
    """Linear between ranks, as ``np.percentile`` does in several times the time, and every request waits for it."""
    place = np.array(list(PERCENTILES.values())) / 100 * (ordered.size - 1)
    below = place.astype(np.intp)
    above = np.minimum(below + 1, ordered.size - 1)
    values = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return dict(zip(PERCENTILES, values.tolist(), strict=True))
