"""Finding a figure in ``metrics.json`` by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slicewise.config.metric_names import SECTIONS, SHORT_NAMES, full_path, near_names
from slicewise.errors import ConfigError
from slicewise.evaluation.intervals import Figure

UNDEFINED = Figure(value=None)
_DOCUMENTED = frozenset(SHORT_NAMES.values())


def find_figure(metrics: Mapping[str, Any], name: str) -> Figure:
    """The figure called ``name``; undefined where this test split does not have it.

    A plain number is a figure without an interval. What a section that is null or absent would hold is undefined.

    Args:
        metrics: The content of ``metrics.json``.
        name: A short name or a dotted path; parts of the path may hold dots themselves.

    Raises:
        ConfigError: No figure has this name; names near matches.
    """
    path = full_path(name)
    found, rest = _walk(metrics, path)
    if not rest:
        figure = as_figure(found)
        if figure is not None:
            return figure
    section = path.partition(".")[0]
    if path in _DOCUMENTED or (section in SECTIONS and metrics.get(section) is None) or (rest and found is None):
        return UNDEFINED
    known = [*SHORT_NAMES, *(path for path, _ in all_figures(metrics))]
    raise ConfigError(
        f"gate: metrics.json has no figure {name!r}{near_names(name, known)}",
        "correct gate.conditions; docs/gate.md lists the names",
    )


def as_figure(value: Any) -> Figure | None:
    """A figure from a figure's record, a number or a null; None for anything else."""
    if value is None:
        return UNDEFINED
    if isinstance(value, Mapping) and "value" in value:
        return Figure.model_validate(
            {key: value.get(key) for key in ("value", "low", "high")} | {"n": value.get("n", 0)}
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Figure(value=float(value))
    return None


def _walk(value: Any, path: str) -> tuple[Any, str]:
    """Follow the path as far as it goes: what is there, and what is left of the path."""
    while path and isinstance(value, Mapping):
        # A subgroup's name may hold dots: the longest key that fits is meant.
        keys = [key for key in value if path == key or path.startswith(f"{key}.")]
        if not keys:
            break
        key = max(keys, key=len)
        value, path = value[key], path[len(key) + 1 :]
    return value, path


def all_figures(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure and number of the metrics' sections, with its path."""
    for key, value in metrics.items():
        if not prefix and key not in SECTIONS:
            continue
        path = f"{prefix}{key}"
        figure = as_figure(value)
        if figure is not None:
            yield path, figure
        elif isinstance(value, Mapping):
            yield from all_figures(value, f"{path}.")
