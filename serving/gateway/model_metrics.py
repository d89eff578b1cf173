"""A batch's figures at the gateway's ``/metrics``, under the names that TorchServe's port has for them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from serving.torchserve.figures import METRICS, BatchFigures, Metric, observations
from serving.torchserve.metrics import MODEL

Collector = Counter | Gauge | Histogram
_KINDS: dict[str, type[Collector]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


def _made(metric: Metric) -> Collector:
    labels = (MODEL, metric.label) if metric.label else (MODEL,)
    return _KINDS[metric.kind](metric.name, metric.text, labels)


_COLLECTORS = {metric.name: _made(metric) for metric in METRICS}


def observe(model_name: str, figures: BatchFigures) -> None:
    """Note what one batch moved."""
    for name, value, label in observations(figures):
        metric = _COLLECTORS[name].labels(model_name, label) if label else _COLLECTORS[name].labels(model_name)
        if isinstance(metric, Counter):
            metric.inc(value)
        elif isinstance(metric, Gauge):
            metric.set(value)
        else:
            metric.observe(value)
