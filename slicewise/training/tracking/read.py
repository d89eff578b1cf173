"""Reading the plain file back, for a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slicewise.training.tracking.base import TrackingError
from slicewise.training.tracking.plain import METRICS, parsed

Point = tuple[int, float]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every record of a ``metrics.jsonl``; a half-written last line, as of a stage under way, is left out.

    Raises:
        TrackingError: The file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            return [record for _, record in parsed(lines, path)]
    except OSError as error:
        cure = "check the path; every training stage writes this file"
        raise TrackingError(f"cannot read {path}: {error.strerror}", cure) from error


def smoothed_losses(
    records: Iterable[Mapping[str, Any]], key: str = "loss", weight: float = 0.9, most: int = 1000
) -> list[Point]:
    """A figure of the optimiser steps, smoothed for a picture.

    The running mean m ← weight·m + (1 − weight)·value, divided by 1 − weightⁿ, so that it does not begin at 0 (as
    TensorBoard does). Steps without the figure are left out.

    Args:
        records: Of ``read_metrics``.
        key: The figure.
        weight: 0 smooths nothing.
        most: Keep at most so many points, evenly spread, the last one always.

    Returns:
        Pairs of step and smoothed figure.

    Raises:
        ValueError: ``weight`` is not in [0, 1), or ``most`` is below 2.
    """
    if not 0 <= weight < 1 or most < 2:
        raise ValueError(f"weight {weight} must be in [0, 1) and most {most} at least 2")
    mean, points = 0.0, []
    for count, (step, value) in enumerate(_figures(records, "step", key), start=1):
        mean = weight * mean + (1 - weight) * value
        points.append((step, mean / (1 - weight**count)))
    if len(points) <= most:
        return points
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def step_losses(folder: Path, most: int = 200) -> list[list[float]]:
    """The smoothed training loss of a stage, for its record; empty where no figures were kept.

    Args:
        folder: The stage's tracking folder.
        most: Keep at most so many points.

    Returns:
        Lists of step and loss, as JSON has them.
    """
    path = folder / METRICS
    return [list(point) for point in smoothed_losses(read_metrics(path), most=most)] if path.is_file() else []


def epoch_figures(records: Iterable[Mapping[str, Any]], key: str) -> list[Point]:
    """A figure of the epochs, as pairs of epoch and value; epochs without it are left out."""
    return _figures(records, "epoch", key)


def _figures(records: Iterable[Mapping[str, Any]], kind: str, key: str) -> list[Point]:
    chosen = [record for record in records if record["kind"] == kind and record.get(key) is not None]
    return [(int(record[kind]), float(record[key])) for record in chosen]
