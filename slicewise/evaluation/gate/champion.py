"""The comparison with the champion: the model that is to be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slicewise.config import GateConfig
from slicewise.config.gate import Bound
from slicewise.config.metric_names import label_of
from slicewise.errors import ConfigError
from slicewise.evaluation.compare_rows import (
    BY_INTERVAL,
    PATIENT_FIGURES,
    PER_REGION,
    Patients,
    Row,
    figure_at,
    paired_rows,
)
from slicewise.evaluation.gate.criterion import Criterion, make_criterion, with_interval
from slicewise.evaluation.intervals import Figure
from slicewise.evaluation.paired import independent
from slicewise.files import read_json

METRICS, BUNDLE = "metrics.json", "bundle.json"
MIN_SHARED = 2
_LOWER = {name for name, better in (*BY_INTERVAL, *PATIENT_FIGURES) if better == "lower"}
_LOWER_REGIONAL = tuple(f"{short}_" for short, _, _, better in PER_REGION if better == "lower")


def champion_criteria(metrics: Mapping[str, Any], gate: GateConfig) -> tuple[dict[str, Any] | None, list[Criterion]]:
    """Compare with the champion, patient by patient where both judged the same ones, else by intervals.

    Returns:
        What it was compared with (None without a champion), and a criterion for each figure. A criterion's figure is
        the gain over the champion: positive is better.

    Raises:
        ConfigError: The champion cannot be read.
    """
    if gate.champion is None:
        return None, []
    champion, kind = read_champion(gate.champion)
    shared = _shared(metrics, champion) if kind == METRICS else []
    told = {
        "name": gate.champion.name,
        "kind": "metrics" if kind == METRICS else "bundle",
        "n_shared": len(shared),
        "paired": len(shared) >= MIN_SHARED,
    }
    rows = {row.metric: row for row in paired_rows(champion, metrics, shared, 0.95)} if told["paired"] else {}
    rule = gate.champion_rule
    criteria = [
        _criterion(metric, drop, rows.get(metric), champion, metrics, rule.bound)
        for metric, drop in rule.max_drop.items()
        if drop is not None
    ]
    return told, criteria


def read_champion(path: Path) -> tuple[Mapping[str, Any], str]:
    """The champion's figures: of a ``metrics.json``, of the folder of one, or those that travel with a bundle.

    Returns:
        The figures, and ``metrics.json`` or ``bundle.json``: a bundle holds no records of patients.

    Raises:
        ConfigError: Neither is there, or it is damaged.
    """
    files = [path / METRICS, path / BUNDLE] if path.is_dir() else [path]
    file = next((file for file in files if file.is_file()), None)
    cure = "give a run's folder, a bundle or a metrics.json"
    if file is None:
        raise ConfigError(f"gate.champion: {path} holds neither {METRICS} nor {BUNDLE}", cure)
    try:
        content = read_json(file)
        return (content, METRICS) if "classification" in content else (dict(content["metrics"]), BUNDLE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"gate.champion: {file} is damaged", cure) from error


def _shared(metrics: Mapping[str, Any], champion: Mapping[str, Any]) -> list[str]:
    return sorted(set(Patients(metrics).names) & set(Patients(champion).names))


def _criterion(
    metric: str,
    drop: float,
    row: Row | None,
    champion: Mapping[str, Any],
    metrics: Mapping[str, Any],
    bound: Bound,
) -> Criterion:
    """The gain in one figure, held against the drop that is allowed."""
    if row is not None:
        old, new, difference = row.a, row.b, row.difference
    else:
        old = _champion_figure(champion, metric)
        new = figure_at(metrics, metric)
        difference = independent(old, new)
    gain = difference.figure if _higher_is_better(metric) else _negated(difference.figure)
    found = make_criterion(f"gain in {label_of(metric)}", metric, gain, "at least", -drop, bound=bound)
    return found.model_copy(update={"sentence": _sentence(found, old, new, difference.method)})


def _champion_figure(champion: Mapping[str, Any], metric: str) -> Figure:
    """From ``metrics.json`` by its path; in a bundle the key figures have their short names."""
    if metric in champion and "classification" not in champion:
        return Figure.model_validate(champion[metric])
    return figure_at(champion, metric)


def _higher_is_better(metric: str) -> bool:
    return metric not in _LOWER and not metric.startswith(_LOWER_REGIONAL)


def _negated(figure: Figure) -> Figure:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return Figure(value=minus(figure.value), low=minus(figure.high), high=minus(figure.low), n=figure.n)


def _sentence(found: Criterion, old: Figure, new: Figure, method: str) -> str:
    label = label_of(found.metric)
    if found.value is None or old.value is None or new.value is None:
        return f"{label} cannot be compared with the champion's: it is undefined for one of the two"
    word = "better" if found.value >= 0 else "worse"
    gain = with_interval(Figure(value=found.value, low=found.low, high=found.high, n=found.n))
    text = (
        f"{label} is {new.value:.3f} against the champion's {old.value:.3f}, {word} by {abs(found.value):.3f} "
        f"(gain {gain}, {method.partition(':')[0]}); a drop of at most {-found.limit:.4g} is allowed"
    )
    if found.bound == "low" and found.low is not None:
        return f"{text}, and the interval of the gain reaches down to {found.low:.3f}"
    return text
