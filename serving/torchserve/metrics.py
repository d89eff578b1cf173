"""A batch's figures on TorchServe's metrics port."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import yaml

from serving.torchserve.figures import METRICS, BatchFigures, Metric, observations
from slicewise.errors import ServerError

MODEL = "ModelName"


def metrics_config() -> str:
    """``metrics.yaml``: TorchServe's own metrics, as its package lists them, and ours.

    Raises:
        ServerError: TorchServe is not installed.
    """
    package = importlib.util.find_spec("ts")
    if package is None or package.origin is None:
        raise ServerError("TorchServe is not installed", "pip install 'slicewise[serving]'")
    own = (Path(package.origin).parent / "configs" / "metrics.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(own)
    for metric in METRICS:
        entry = {"name": metric.name, "unit": metric.unit, "dimensions": _dimensions(metric)}
        content["model_metrics"].setdefault(metric.kind, []).append(entry)
    return yaml.safe_dump(content, sort_keys=False)


def emit(cache: Any, model_name: str, figures: BatchFigures) -> None:
    """Hand the figures to TorchServe.

    Args:
        cache: ``context.metrics`` of the worker, made from ``metrics_config``.
        model_name: The label of every metric.
        figures: Of one batch.
    """
    kinds = {metric.name: metric for metric in METRICS}
    for name, value, label in observations(figures):
        metric = kinds[name]
        values = [model_name, label] if metric.label else [model_name]
        cache.get_metric(name, _type(metric)).add_or_update(value, values)


def _dimensions(metric: Metric) -> list[str]:
    return [MODEL, metric.label] if metric.label else [MODEL]


def _type(metric: Metric) -> Any:
    from ts.metrics.metric_type_enum import MetricTypes

    return MetricTypes(metric.kind)
