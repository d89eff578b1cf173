"""Plots of the comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicewise.config import REGIONS
from slicewise.evaluation.report.canvas import (
    BAD,
    GOOD,
    GREY,
    INK,
    LINE,
    REGION_COLOURS,
    THIRD,
    WIDTH,
    drawing,
    room_for,
    to_svg,
)
from slicewise.evaluation.report.plot import Plot, make_plot
from slicewise.evaluation.words import number

Comparison = Mapping[str, Any]
UNITS = (("", "compare-forest"), ("mm", "compare-forest-unit"), ("ml", "compare-forest-unit"))


def compare_plots(comparison: Comparison, anchors: Mapping[str, str]) -> list[Plot]:
    """Differences as forest plots, one for each unit, and every patient's Dice in both runs.

    Args:
        comparison: As ``compare_runs`` gives.
        anchors: Patient → where a click on the dot leads.
    """
    found = [_forest(comparison, unit, kind) for unit, kind in UNITS]
    found += [_scatter(comparison, region, anchors) for region in REGIONS]
    return [plot for plot in found if plot is not None]


def _names(comparison: Comparison) -> tuple[str, str]:
    return comparison["runs"][0]["name"], comparison["runs"][1]["name"]


def _forest(comparison: Comparison, unit: str, kind: str) -> Plot | None:
    rows = [row for row in comparison["rows"] if row["unit"] == unit and row["difference"]["value"] is not None]
    if not rows:
        return None
    a, b = _names(comparison)
    name = f"plot-compare-{unit or 'share'}"
    labels = [f"{row['label']} (n={row['difference']['n']})" for row in rows]
    with drawing(2 * WIDTH, 0.7 + 0.3 * len(rows), left=room_for(labels)) as (made, ax):
        ax.axvline(0, color=GREY, lw=1)
        for at, row in enumerate(reversed(rows)):
            _bar(ax, at, row)
        ax.set_yticks(range(len(rows)), labels[::-1])
        ax.set_ylim(-0.6, len(rows) - 0.4)
        low, high = ax.get_xlim()
        reach = max(abs(low), abs(high))
        ax.set_xlim(-reach, reach)
        ax.set_xlabel(f"← {a} better · difference{f', {unit}' if unit else ''} · {b} better →")
        ax.grid(axis="x", color=LINE, lw=0.8)
        svg = to_svg(made, name, "differences between the runs")
    return make_plot(kind, name, svg, size="wide", a=a, b=b, unit=unit)


def _bar(ax: Any, at: int, row: Mapping[str, Any]) -> None:
    """One difference, turned so that right is better for the second run."""
    sign = 1 if row["better"] == "higher" else -1
    figure = row["difference"]
    ends = [sign * figure[end] for end in ("low", "high") if figure[end] is not None]
    colour = INK
    if row["p_holm"] is not None and row["p_holm"] < 0.05:
        colour = GOOD if sign * figure["value"] > 0 else BAD
    if ends:
        ax.plot(sorted(ends), [at, at], color=colour, lw=1.6, solid_capstyle="butt")
    ax.plot(sign * figure["value"], at, "s", color=colour, ms=5, mfc=colour if row["p"] is not None else "white")


def _scatter(comparison: Comparison, region: str, anchors: Mapping[str, str]) -> Plot | None:
    pairs = [(patient["patient"], patient[region]["dice"]) for patient in comparison["patients"]]
    told = [(name, x, y) for name, (x, y) in pairs if x is not None and y is not None]
    if not told:
        return None
    a, b = _names(comparison)
    name = f"plot-compare-{region.lower()}"
    with drawing(THIRD) as (made, ax):
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        x, y = [x for _, x, _ in told], [y for _, _, y in told]
        dots = ax.scatter(x, y, s=24, color=REGION_COLOURS[region], alpha=0.8, edgecolors="white", linewidths=0.4)
        dots.set_urls([f"#{anchors[patient]}" for patient, _, _ in told])
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=f"Dice, {a}", ylabel=f"Dice, {b}")
        tips = {anchors[patient]: f"{patient} · {number(x, 2)} → {number(y, 2)}" for patient, x, y in told}
        svg = to_svg(made, name, f"Dice of {region} in both runs", tips)
    return make_plot("compare-dice", name, svg, size="third", region=region, n=len(told), a=a, b=b)
