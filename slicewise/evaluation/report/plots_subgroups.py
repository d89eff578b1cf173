"""Forest plots: a figure in every subgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicewise.evaluation.report.canvas import GREY, INK, LINE, WIDTH, drawing, room_for, to_svg
from slicewise.evaluation.report.plot import Plot, make_plot

Figures = Mapping[str, Any]
FOREST = (("dice_wt", "Dice of the whole tumour"), ("roc_auc", "ROC-AUC of studies"))


def forest_plots(subgroups: Mapping[str, Any], overall: Mapping[str, Figures | None]) -> list[Plot]:
    """One forest plot for each figure that subgroups have.

    Args:
        subgroups: The section of that name.
        overall: Figure → that of all test patients.
    """
    found = [(key, title, subgroup_rows(subgroups, key)) for key, title in FOREST]
    return [_forest(key, title, rows, overall.get(key)) for key, title, rows in found if rows]


def subgroup_rows(subgroups: Mapping[str, Any], key: str) -> list[tuple[str, Figures]]:
    """Label and figure of each subgroup in which the figure is defined."""
    return [
        (f"{by}: {name}", row[key])
        for by, groups in subgroups.items()
        if isinstance(groups, Mapping)
        for name, row in groups.items()
        if isinstance(row, Mapping) and (row.get(key) or {}).get("value") is not None
    ]


def _forest(key: str, title: str, rows: Sequence[tuple[str, Figures]], overall: Figures | None) -> Plot:
    name = f"plot-forest-{key.replace('_', '-')}"
    labels = [f"{label} (n={figure['n']})" for label, figure in rows]
    with drawing(2 * WIDTH, 0.7 + 0.3 * len(rows), left=room_for(labels)) as (made, ax):
        if overall and overall.get("value") is not None:
            ax.axvline(overall["value"], color=GREY, lw=1, ls="--")
        for at, (_, figure) in enumerate(reversed(rows)):
            if figure.get("low") is not None:
                ax.plot([figure["low"], figure["high"]], [at, at], color=INK, lw=1.6, solid_capstyle="butt")
            ax.plot(figure["value"], at, "s", color=INK, ms=4 + min(figure["n"], 60) / 12)
        ax.set_yticks(range(len(rows)), labels[::-1])
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4), xlabel=title)
        ax.grid(axis="x", color=LINE, lw=0.8)
        svg = to_svg(made, name, f"{title} by subgroup")
    return make_plot("forest", name, svg, size="wide", figure=title)
