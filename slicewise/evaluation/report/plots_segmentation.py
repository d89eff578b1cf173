"""Plots of the segmentation: overlap, surface distance, volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.evaluation.report.canvas import (
    GREY,
    INK,
    LINE,
    REGION_COLOURS,
    SERIES,
    THIRD,
    WIDTH,
    drawing,
    room_for,
    to_svg,
)
from slicewise.evaluation.report.plot import Plot, make_plot
from slicewise.evaluation.shown_studies import Study
from slicewise.evaluation.words import number, region_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX_FROM = 5
MOST_SOURCES = 6
# About 95 % of normally distributed differences lie within so many standard deviations.
AGREEMENT = 1.96
STRIPS = (
    ("dice", "dice", "Dice (1: the model's region is the reference's)"),
    ("hd95", "hd95_mm", "95 % Hausdorff distance in mm (0: the surfaces are the same)"),
)
Row = tuple[str, str, list[tuple[Study, str]]]


def segmentation_plots(studies: Sequence[Study]) -> list[Plot]:
    """All plots for which there is data."""
    found = [_strips(studies, kind, key, axis) for kind, key, axis in STRIPS]
    found += [_bland_altman(studies, region) for region in REGIONS]
    return [plot for plot in found if plot is not None]


def _strips(studies: Sequence[Study], kind: str, key: str, axis: str) -> Plot | None:
    """One row of dots for each region and source, with a box where there are enough."""
    rows = _rows(studies, key)
    if not rows:
        return None
    name = f"plot-{kind}"
    left = room_for(label for label, _, _ in rows)
    with drawing(2 * WIDTH, 0.7 + 0.34 * len(rows), left=left) as (made, ax):
        for at, (_, colour, members) in enumerate(reversed(rows)):
            values = np.array([study.region(region)[key] for study, region in members], dtype=float)
            _strip(ax, at, values, [f"#{study.pictures}" for study, _ in members], colour)
        ax.set_yticks(range(len(rows)), [label for label, _, _ in reversed(rows)])
        ax.set(ylim=(-0.6, len(rows) - 0.4), xlabel=axis)
        if kind == "dice":
            ax.set_xlim(-0.02, 1.02)
        else:
            ax.set_xlim(left=0)
        ax.grid(axis="x", color=LINE, lw=0.8)
        ax.set_axisbelow(True)
        svg = to_svg(made, name, kind, {study.pictures: study.tip for study in studies})
    boxed = any(len(members) >= BOX_FROM for _, _, members in rows)
    boxes = f", and a box from the lower to the upper quartile from {BOX_FROM} studies on" if boxed else ""
    return make_plot(kind, name, svg, size="wide", boxes=boxes)


def _rows(studies: Sequence[Study], key: str) -> list[Row]:
    """Label, colour and members of each row: regions, split by source where there are several."""
    sources = sorted({str(study.record["source"]) for study in studies})
    split = 1 < len(sources) <= MOST_SOURCES
    rows: list[Row] = []
    for region in REGIONS:
        scored = [(study, region) for study in studies if study.has(region, key)]
        for source in sources if split else [""]:
            members = [pair for pair in scored if not split or pair[0].record["source"] == source]
            if members:
                label = f"{region}{f' · {source}' if split else ''} (n={len(members)})"
                rows.append((label, REGION_COLOURS[region], members))
    return rows


def _strip(ax: Axes, at: int, values: NDArray[np.float64], urls: list[str], colour: str) -> None:
    if len(values) >= BOX_FROM:
        low, middle, high = np.percentile(values, [25, 50, 75])
        ax.barh(at, high - low, left=low, height=0.62, color=colour, alpha=0.16, zorder=1)
        ax.plot([middle, middle], [at - 0.31, at + 0.31], color=colour, lw=1.2, zorder=2)
    # Dots that would hide each other are spread by their rank, not at random: the page is the same every time.
    spread = np.zeros(len(values))
    spread[np.argsort(values, kind="stable")] = (np.arange(len(values)) % 5 - 2) * 0.09
    dots = ax.scatter(
        values, at + spread, s=22, color=colour, alpha=0.8, edgecolors="white", linewidths=0.4, zorder=3
    )
    dots.set_urls(urls)
    ax.plot([values.mean()] * 2, [at - 0.4, at + 0.4], color=INK, lw=2, zorder=4)


def _bland_altman(studies: Sequence[Study], region: str) -> Plot | None:
    """Volume differences over mean volumes (Bland and Altman, Lancet 1986)."""
    members = [s for s in studies if s.has(region, "reference_ml") and s.has(region, "predicted_ml")]
    if not members:
        return None
    predicted, reference = (
        np.array([s.region(region)[key] for s in members]) for key in ("predicted_ml", "reference_ml")
    )
    difference = predicted - reference
    bias, spread = float(difference.mean()), float(difference.std(ddof=1)) if len(members) > 1 else 0.0
    limits = [bias - AGREEMENT * spread, bias + AGREEMENT * spread] if len(members) > 2 else []
    name = f"plot-volume-{region.lower()}"
    with drawing(THIRD) as (made, ax):
        ax.axhline(0, color=GREY, lw=0.8)
        ax.axhline(bias, color=INK, lw=1.5)
        for limit in limits:
            ax.axhline(limit, color=INK, lw=1, ls="--")
        _dots_by_source(ax, members, (predicted + reference) / 2, difference)
        ax.set(xlabel="mean of model and reference, ml", ylabel="model − reference, ml")
        svg = to_svg(made, name, f"volumes of {region}", {s.pictures: _volume_tip(s, region) for s in members})
    words = f", dashed the limits of agreement, {number(limits[0], 1)} to {number(limits[1], 1)} ml" if limits else ""
    about = f"{region_words(region)} ({region})"
    return make_plot(
        "volume", name, svg, size="third", region=about, n=len(members), bias=number(bias, 1), limits=words
    )


def _dots_by_source(ax: Axes, members: Sequence[Study], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    sources = sorted({str(study.record["source"]) for study in members})
    for at, source in enumerate(sources):
        inside = np.array([study.record["source"] == source for study in members])
        dots = ax.scatter(x[inside], y[inside], s=24, color=SERIES[at % len(SERIES)], alpha=0.8, label=source)
        dots.set_urls([f"#{study.pictures}" for study, here in zip(members, inside, strict=True) if here])
    if len(sources) > 1:
        ax.legend(loc="best")


def _volume_tip(study: Study, region: str) -> str:
    row = study.region(region)
    return f"{study.name} · model {number(row['predicted_ml'], 1)} ml, reference {number(row['reference_ml'], 1)} ml"
