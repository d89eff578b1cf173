"""Plots of what the model knows of its own limits: uncertainty, explanations, foreign scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slicewise.evaluation.report.canvas import BAD, INK, LINE, REGION_COLOURS, SERIES, drawing, to_svg
from slicewise.evaluation.report.plot import Plot, make_plot
from slicewise.evaluation.shown_studies import Study
from slicewise.evaluation.words import plain

Section = Mapping[str, Any]
MOST_BINS = 25


def retention_plot(section: Section) -> Plot | None:
    """Error left when the most uncertain pixels are handed over, with the best and a random order.

    Args:
        section: The section ``uncertainty``.
    """
    regions = {name: (row or {}).get("curves") or {} for name, row in (section.get("regions") or {}).items()}
    told = {name: curves for name, curves in regions.items() if curves.get("error") and curves.get("retained")}
    if not told:
        return None
    with drawing() as (made, ax):
        for name, curves in told.items():
            colour = REGION_COLOURS.get(name, INK)
            for key, style, width in (("error", "-", 1.8), ("random", ":", 0.9), ("ideal", "--", 0.9)):
                if curves.get(key):
                    label = name if key == "error" else None
                    ax.plot(curves["retained"], curves[key], color=colour, lw=width, ls=style, label=label)
        ax.set(xlabel="share of the head that the model keeps", ylabel="share of wrong voxels", xlim=(0, 1))
        ax.set_ylim(bottom=0)
        ax.legend(loc="upper left")
        svg = to_svg(made, "plot-retention", "error retention curves")
    return make_plot("retention", "plot-retention", svg)


def uncertainty_dice_plot(studies: Sequence[Study]) -> Plot | None:
    """A study's uncertainty against its Dice."""
    told = [(s, s.uncertainty, s.dice) for s in studies]
    rows = [(s, u, d) for s, u, d in told if u is not None and d is not None]
    if len(rows) < 2:
        return None
    with drawing() as (made, ax):
        x, y = [u for _, u, _ in rows], [d for _, _, d in rows]
        dots = ax.scatter(x, y, s=26, color=INK, alpha=0.75, edgecolors="white")
        dots.set_urls([f"#{s.pictures}" for s, _, _ in rows])
        ax.set(xlabel="mean entropy in the tumour that the model draws, nats", ylabel="Dice", ylim=(-0.02, 1.02))
        ax.grid(color=LINE, lw=0.8)
        svg = to_svg(made, "plot-uncertainty-dice", "uncertainty and Dice", {s.pictures: s.tip for s, _, _ in rows})
    return make_plot("uncertainty-dice", "plot-uncertainty-dice", svg, n=len(rows))


def sanity_plot(section: Section) -> Plot | None:
    """How explanations change with ever more random weights.

    Args:
        section: The section ``explanation``.
    """
    cascade = (section.get("sanity") or {}).get("cascade") or []
    steps = [step for step in cascade if step.get("similarity") is not None]
    if not steps:
        return None
    with drawing() as (made, ax):
        ax.plot(range(len(steps)), [step["similarity"] for step in steps], "o-", color=INK)
        ticks = [step["randomised"].replace("head and", "+").replace(" of the encoder", "") for step in steps]
        ax.set_xticks(range(len(steps)), ticks)
        ax.set(xlabel="what is random: the head, and a share of the encoder from its end on")
        ax.set(ylim=(-0.02, 1.02), ylabel="similarity to the trained network's map")
        svg = to_svg(made, "plot-sanity", "sanity check of explanations")
    return make_plot("sanity", "plot-sanity", svg)


def score_plot(groups: Mapping[str, Sequence[float]], limit: float | None) -> Plot | None:
    """Scores of foreignness of several groups of scans, as histograms on one scale."""
    told = {name: list(values) for name, values in groups.items() if values}
    everything = [value for values in told.values() for value in values]
    if len(everything) < 2:
        return None
    from matplotlib.ticker import MaxNLocator

    spread = max(everything) > min(everything)
    bins = min(MOST_BINS, max(6, round(2 * len(everything) ** 0.5)))
    edges = np.linspace(min(everything), max(everything), bins).tolist() if spread else bins
    with drawing() as (made, ax):
        for at, (name, values) in enumerate(told.items()):
            label = f"{plain(name)} (n={len(values)})"
            ax.hist(values, bins=edges, color=SERIES[at % len(SERIES)], alpha=0.5, label=label)
        if limit is not None:
            ax.axvline(limit, color=BAD, lw=1.4, label="limit")
        ax.set(xlabel="score: how unlike the training slices", ylabel="count")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()
        svg = to_svg(made, "plot-ood", "scores of foreignness")
    words = "; the red line is the limit above which a slice is flagged" if limit is not None else ""
    return make_plot("ood", "plot-ood", svg, things=" and ".join(told), limit=words)
